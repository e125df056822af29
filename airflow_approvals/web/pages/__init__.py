"""The pages that people open in a browser, inside Airflow's frame or on their own."""
