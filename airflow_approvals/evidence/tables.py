"""The same facts for spreadsheets: one row for each action, and one for each thing to look at."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from airflow_approvals.evidence.cases import Case
from airflow_approvals.evidence.reports import total
from airflow_approvals.evidence.summary import SECTIONS, Notable, Summary
from airflow_approvals.evidence.words import visible

ACTION_COLUMNS = (
    "request_id", "opened_at", "requesters", "task", "action", "source", "destination", "justification",
    "rows", "bytes", "sha256", "policy", "policy_digest", "pii_before", "pii_after", "pii_verified",
    "approved_by", "denied_by", "channels", "groups", "granted_by", "state", "decided_at", "decided_because",
    "redeemed_at", "published", "published_sha256", "as_approved", "outcome_at", "ended_at", "ended_because",
    "refused_attempts", "receipt_sha256", "ledger_index",
)  # fmt: skip
NOTABLE_COLUMNS = ("list", "at", "request_id", "who", "what")

# A spreadsheet runs what begins like a formula; so a destination could act in an auditor's hands.
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and in full width


class ActionTable:
    """Writes actions.csv row by row."""

    def __init__(self, stream: TextIO) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._rows.writerow(ACTION_COLUMNS)

    def write(self, case: Case) -> None:
        self._rows.writerow([*map(safe, _values(case))])


def write_notables(path: Path, summary: Summary) -> None:
    """Write exceptions.csv: every list of the report, a list without anything as one row that says so."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(NOTABLE_COLUMNS)
        for name in SECTIONS:
            found = summary.notable[name] or [Notable(at="", request_id="", who="", what="none")]
            rows.writerows(
                [name, *map(safe, (each.at, each.request_id, each.who, each.what))] for each in found
            )


def safe(value: object) -> object:
    """Return text that no spreadsheet takes for a formula, all of it to be seen; other values as they are."""
    if not isinstance(value, str):
        return value
    told = visible(value)
    return f"'{told}" if told.startswith(_FORMULA) else told


def _values(case: Case) -> tuple[object, ...]:
    said = [(answer.voter, answer.verdict) for answer in case.answers]
    pii, granted = case.pii, case.granted
    return (
        case.id,
        case.opened_at,
        _joined(case.requesters),
        case.task,
        case.kind,
        case.source,
        case.destination,
        case.why,
        case.rows,
        case.size,
        _joined(case.digests),
        case.policy,
        case.policy_digest,
        total(pii.before) if pii else None,
        total(pii.after) if pii else None,
        pii.verified if pii else None,
        _joined(voter for voter, verdict in said if verdict == "approve"),
        _joined(voter for voter, verdict in said if verdict == "deny"),
        _joined(dict.fromkeys(answer.channel for answer in case.answers)),
        _joined(dict.fromkeys(group for answer in case.answers for group in answer.groups)),
        f"{granted['kind']}: {_joined(granted['by'])}" if granted else "",
        case.state,
        case.decided_at,
        case.decided_because,
        _joined(case.redeemed_at),
        case.published,
        case.published_digest,
        case.is_as_approved if case.published and case.digests else None,  # else nothing to compare with
        case.outcome_at,
        case.ended_at,
        case.ended_because,
        len(case.refusals),
        case.receipt_sha256,
        case.decision_index,
    )


def _joined(values: Iterable[str]) -> str:
    return "; ".join(values)
