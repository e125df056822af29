"""Slack: prompts in Block Kit, signed clicks back, explicit links from Slack accounts to Airflow logins."""
