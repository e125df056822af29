"""Personal data in staged tables: what Presidio finds, column by column. Knows nothing of Airflow."""
