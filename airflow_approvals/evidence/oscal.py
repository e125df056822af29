"""The package as NIST OSCAL assessment results: checks as observations, controls as findings.

Written as plain JSON in the shape of OSCAL 1.2; `validate` holds it against compliance-trestle's models,
where the extra `evidence` is installed. Ids follow from the ledger's root and the period: the same package
has the same document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from airflow_approvals.core.errors import MissingExtraError, VerificationError
from airflow_approvals.core.export import LedgerReport
from airflow_approvals.core.moments import rfc3339
from airflow_approvals.evidence.checks import Checked
from airflow_approvals.evidence.controls import Control, holds, mapping
from airflow_approvals.evidence.ledger_file import Period
from airflow_approvals.evidence.summary import SECTIONS, Summary

OSCAL_VERSION = "1.2.1"
NAMESPACE = "https://airflow-approvals.github.io/ns/oscal"


def assessment_results(
    *,
    summary: Summary,
    checks: tuple[Checked, ...],
    report: LedgerReport,
    period: Period,
    made_at: datetime,
    version: str,
    files: Iterable[tuple[str, str, str, str]],
) -> dict[str, Any]:
    """Return the document; `files` are name, media type, what it is, SHA-256."""
    ids = _Ids(report, period)
    resources = [_resource(ids, *each) for each in files]
    return {
        "assessment-results": {
            "uuid": ids.of("document"),
            "metadata": {
                "title": f"Approvals of privileged actions in {report.origin}",
                "last-modified": rfc3339(made_at),
                "version": version,
                "oscal-version": OSCAL_VERSION,
                "props": [
                    _prop("ledger-entries", str(report.entries)),
                    _prop("ledger-root", report.root),
                ],
                "remarks": (
                    "Made by airflow-approvals from its verified ledger. A finding tells whether every check "
                    "that speaks for a control holds in the period; an assessor decides whether it is met."
                ),
            },
            "import-ap": {
                "href": f"#{ids.of('controls.yaml')}",
                "remarks": "The mapping of checks to controls is the whole plan of this assessment.",
            },
            "results": [_result(ids, summary, checks, period, made_at)],
            "back-matter": {"resources": resources},
        }
    }


def validate(path: Path) -> None:
    """Raise `VerificationError` unless compliance-trestle reads the file as OSCAL assessment results."""
    try:
        from trestle.oscal.assessment_results import Model
    except ImportError:
        raise MissingExtraError(
            "OSCAL cannot be validated here; install airflow-approvals[evidence] (compliance-trestle)"
        ) from None
    from pydantic import ValidationError

    try:
        Model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        places = ", ".join(".".join(map(str, each["loc"])) for each in error.errors()[:3])
        raise VerificationError(f"{path}: not OSCAL assessment results at {places}") from None


class _Ids:
    """Ids that follow from what the document is about."""

    def __init__(self, report: LedgerReport, period: Period) -> None:
        about = "/".join((NAMESPACE, report.origin, str(report.entries), report.root, *period.bounds))
        self._namespace: UUID = uuid5(NAMESPACE_URL, about)

    def of(self, name: str) -> str:
        return str(uuid5(self._namespace, name))


def _result(
    ids: _Ids, summary: Summary, checks: tuple[Checked, ...], period: Period, made_at: datetime
) -> dict[str, Any]:
    since, until = period.bounds
    return {
        "uuid": ids.of("result"),
        "title": "Gated actions, decisions and what came of them",
        "description": f"{summary.cases} requests, {summary.approvals} approvals, {summary.published} "
        f"publications, {summary.refusals} refused attempts. Made only because all {summary.entries} entries "
        f"of the ledger and all {summary.receipts} receipts of these approvals verified.",
        "start": since,
        "end": until,
        "reviewed-controls": {
            "control-selections": [
                {
                    "description": framework.title,
                    "include-controls": [
                        {"control-id": control.id}
                        for control in mapping().controls
                        if control.framework == name
                    ],
                }
                for name, framework in mapping().frameworks.items()
            ]
        },
        "observations": [
            *(_check_observation(ids, check, made_at) for check in checks),
            *(_list_observation(ids, name, summary, made_at) for name in SECTIONS),
        ],
        "findings": [_finding(ids, control, checks) for control in mapping().controls],
    }


def _check_observation(ids: _Ids, check: Checked, made_at: datetime) -> dict[str, Any]:
    return {
        "uuid": ids.of(f"check {check.name}"),
        "title": check.title,
        "description": check.told,
        "props": [
            _prop("check", check.name),
            _prop("holds", "yes" if check.holds else "no"),
            _prop("as-expected", str(check.found)),
            _prop("looked-at", str(check.of)),
        ],
        "methods": ["EXAMINE"],
        "types": ["control-objective"],
        "relevant-evidence": [
            _evidence(ids, "actions.csv", "One row for each action."),
            _evidence(ids, "ledger.jsonl", "The ledger that everything was made from."),
        ],
        "collected": rfc3339(made_at),
    }


def _list_observation(ids: _Ids, name: str, summary: Summary, made_at: datetime) -> dict[str, Any]:
    title, about = SECTIONS[name]
    found = len(summary.notable[name])
    return {
        "uuid": ids.of(f"list {name}"),
        "title": title,
        "description": f"{about} {f'{found} in the period.' if found else 'None in the period.'}",
        "props": [_prop("list", name), _prop("count", str(found))],
        "methods": ["EXAMINE"],
        "types": ["historic"],
        "relevant-evidence": [_evidence(ids, "exceptions.csv", f"The rows whose list is {name}.")],
        "collected": rfc3339(made_at),
    }


def _finding(ids: _Ids, control: Control, checks: tuple[Checked, ...]) -> dict[str, Any]:
    told = " ".join(check.told for check in checks if check.name in control.checks)
    return {
        "uuid": ids.of(f"finding {control.id}"),
        "title": f"{control.name} {control.title}",
        "description": f"Shown, if all of its checks hold: {control.shows} The checks: {told}",
        "target": {
            "type": "objective-id",
            "target-id": f"{control.id}_obj",
            "status": {"state": "satisfied" if holds(control, checks) else "not-satisfied"},
        },
        "related-observations": [{"observation-uuid": ids.of(f"check {name}")} for name in control.checks],
        "remarks": f"Not shown here: {control.does_not_show}",
    }


def _resource(ids: _Ids, name: str, media_type: str, about: str, sha256: str) -> dict[str, Any]:
    return {
        "uuid": ids.of(name),
        "title": name,
        "description": about,
        "rlinks": [
            {
                "href": f"./{name}",
                "media-type": media_type,
                "hashes": [{"algorithm": "SHA-256", "value": sha256}],
            }
        ],
    }


def _evidence(ids: _Ids, name: str, about: str) -> dict[str, str]:
    return {"href": f"#{ids.of(name)}", "description": about}


def _prop(name: str, value: str) -> dict[str, str]:
    return {"name": name, "ns": NAMESPACE, "value": value}
