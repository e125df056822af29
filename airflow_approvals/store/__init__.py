"""Requests and the ledger in Airflow's metadata database: tables, store, task instances."""
