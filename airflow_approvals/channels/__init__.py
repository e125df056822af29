"""Where people are asked outside of Airflow: prompts go out, answers come in, the rules stay in `core`."""
