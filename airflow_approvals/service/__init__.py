"""The use cases: open, vote, ask, answer, cancel, revoke, break glass, redeem, report, expire.

Every change is one transaction with its ledger entry, and every refused attempt is an entry of its own. The
service has no clock and makes no ids: callers pass `now` and `request_id`.
"""

from __future__ import annotations

from airflow_approvals.service.answering import AnsweringCases
from airflow_approvals.service.cases import actor_of
from airflow_approvals.service.emergency import EmergencyCases
from airflow_approvals.service.lending import LendingCases
from airflow_approvals.service.opening import Opening, OpeningCases
from airflow_approvals.service.standing import Opened
from airflow_approvals.service.upkeep import MAX_KEYS, UpkeepCases
from airflow_approvals.service.using import UsingCases

__all__ = ["MAX_KEYS", "Opened", "Opening", "Service", "actor_of"]


class Service(OpeningCases, AnsweringCases, EmergencyCases, UsingCases, LendingCases, UpkeepCases):
    """Joins rules, store, signer and policy; everything that changes a request goes through here."""
