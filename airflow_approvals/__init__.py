"""airflow-approvals: nothing leaves a DAG until somebody else has approved exactly those bytes.

A map of the package: `core` decides, `ports` says what the outside must provide, `service` holds the use
cases, `store`, `staging`, `pii`, `channels`, `web` and `client` touch the world, `wiring` joins them, and
`operators`, `sensors`, `triggers`, `hooks`, `plugin` and `cli` are the doors.
"""

__version__ = "0.1.0"
