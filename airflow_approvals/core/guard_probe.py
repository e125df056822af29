"""By what one can see from outside that the guard stands in front of the execution API."""

from __future__ import annotations

PROBE = "/connections/airflow-approvals-guard"
"""Asked for without a token: Airflow refuses, and the guard, where there is one, signs the refusal."""
GUARD_HEADER = "x-approvals-guard"
