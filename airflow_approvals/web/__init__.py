"""The REST API, mounted into Airflow's API server under `/approvals`."""
