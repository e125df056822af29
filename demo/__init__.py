"""The demo: an embedded Airflow, a staged customer list, a human's yes, and attacks on every promise."""
