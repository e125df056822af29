"""The command line: `airflow approvals ...`, and `airflow-approvals` where Airflow is not set up."""
