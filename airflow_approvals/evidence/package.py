"""An evidence package: a folder that stands on its own, and that anybody can make again from its ledger.

    ledger.jsonl      the whole ledger, as `ledger export` writes it: everything else is made from it
    receipts.jsonl    the receipt of each approval of the period, with its proof under the ledger's head
    keys.json         the public keys that came with the ledger
    checkpoint.txt    the signed head
    controls.yaml     which checks speak for which control
    index.html        the report for people
    actions.csv       one row for each action
    exceptions.csv    one row for each thing to look at
    oscal.json        NIST OSCAL assessment results
    manifest.json     the period, and the digest of every file

Nothing in it is signed but ledger and receipts: the rest is verified by making it again, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from airflow_approvals import __version__
from airflow_approvals.core.canonical import canonical_json
from airflow_approvals.core.checkpoint import Checkpoint
from airflow_approvals.core.dsse import read_json
from airflow_approvals.core.errors import (
    ApprovalsError,
    InvalidRequestError,
    ReceiptInvalidError,
    VerificationError,
)
from airflow_approvals.core.export import MAX_LINE, LedgerReport, keys_brought_by, verify_export
from airflow_approvals.core.moments import rfc3339, time_of
from airflow_approvals.core.signature import PublicKeys
from airflow_approvals.evidence.cases import case_of
from airflow_approvals.evidence.checks import Checked, checked
from airflow_approvals.evidence.controls import MAPPING_FILE
from airflow_approvals.evidence.ledger_file import LedgerFile, Period
from airflow_approvals.evidence.oscal import assessment_results
from airflow_approvals.evidence.page import Page
from airflow_approvals.evidence.receipts import Envelopes, Receipts
from airflow_approvals.evidence.summary import Summary
from airflow_approvals.evidence.tables import ActionTable, write_notables

FORMAT = "airflow-approvals-evidence/1"
LEDGER, RECEIPTS, MANIFEST, OSCAL = "ledger.jsonl", "receipts.jsonl", "manifest.json", "oscal.json"

_FILES = {
    LEDGER: ("application/jsonl", "The whole ledger, signed and proven."),
    RECEIPTS: ("application/jsonl", "The receipt of each approval, with its proof under the ledger's head."),
    "keys.json": ("application/json", "The public keys that came with the ledger."),
    "checkpoint.txt": ("text/plain", "The signed head of the ledger."),
    "controls.yaml": (
        "application/yaml",
        "Which checks speak for which control: the assessment plan.",
    ),
    "index.html": ("text/html", "The report for people."),
    "actions.csv": ("text/csv", "One row for each action."),
    "exceptions.csv": ("text/csv", "One row for each thing to look at."),
}


@dataclass(frozen=True, kw_only=True)
class Package:
    """What a package holds, made or verified."""

    path: Path
    period: Period
    report: LedgerReport
    summary: Summary
    checks: tuple[Checked, ...]


def make_package(
    folder: Path, envelopes: Path, period: Period, *, keys: PublicKeys | None, made_at: datetime
) -> Package:
    """Fill `folder`, which holds the ledger's export, with everything else; `envelopes` has the receipts.

    The ledger and every receipt are verified on the way, with `keys`, or with those that came along when None
    is given. Raises `VerificationError` for the first thing that is wrong.
    """
    if period.since >= period.until:
        raise InvalidRequestError("the period is empty: --since must be before --until")
    return _derive(folder, folder / LEDGER, envelopes, period, keys, made_at=made_at)


def verify_package(folder: Path, keys: PublicKeys | None, *, known: Iterable[Checkpoint] = ()) -> Package:
    """Make the package in `folder` again from its ledger and receipts; raise for the first difference.

    `keys` None takes those inside: then only agreement with itself is shown. `known` are verified checkpoints
    from elsewhere, which its ledger must contain.
    """
    manifest = _read_manifest(folder)
    _check_version(folder, manifest["version"])
    period = Period(since=time_of(manifest["since"]), until=time_of(manifest["until"]))
    _check_names(folder)
    with tempfile.TemporaryDirectory(prefix="approvals-evidence-") as scratch:
        again = Path(scratch)
        made = _derive(
            again,
            folder / LEDGER,
            folder / RECEIPTS,
            period,
            keys,
            made_at=time_of(manifest["made_at"]),
            known=known,
        )
        for name in (*_FILES, OSCAL, MANIFEST):
            if name != LEDGER and _sha256(folder / name) != _sha256(again / name):
                raise VerificationError(
                    f"{name} is not what the ledger beside it says: it was changed, or is of "
                    "another package; make the package anew, and ask who changed this one"
                )
    return Package(
        path=folder, period=made.period, report=made.report, summary=made.summary, checks=made.checks
    )


def _derive(
    out: Path,
    ledger_path: Path,
    envelopes_path: Path,
    period: Period,
    keys: PublicKeys | None,
    *,
    made_at: datetime,
    known: Iterable[Checkpoint] = (),
) -> Package:
    with _in_file(LEDGER), ledger_path.open("rb", buffering=1 << 20) as stream:
        report = verify_export(stream, keys, known=known)
    brought = _keys_of(ledger_path)
    summary = Summary()
    with (
        _in_file(RECEIPTS, ReceiptInvalidError),
        LedgerFile(ledger_path, period) as ledger,
        Envelopes(envelopes_path) as envelopes,
        Page() as page,
    ):
        _check_brought(brought, keys, ledger)
        summary.add_keys(brought.keys() | {report.head.keyid}, ledger)
        summary.add_others(ledger)
        with (
            (out / RECEIPTS).open("wb") as bundles,
            (out / "actions.csv").open("w", encoding="utf-8", newline="") as rows,
            Receipts(bundles, envelopes, ledger, report, keys or brought) as receipts,
        ):
            table = ActionTable(rows)
            for request_id in ledger.request_ids():
                case = case_of(request_id, ledger.entries_of(request_id))
                summary.add(case, ledger)
                if case.was_approved and case.decided_at >= period.bounds[0]:
                    receipts.add(case)
                table.write(case)
                page.write(case)
        summary.receipts = receipts.written
        summary.sort()
        checks = checked(summary)
        page.finish(
            out / "index.html",
            summary=summary,
            ledger=ledger,
            report=report,
            checks=checks,
            keys=brought,
            made_at=made_at,
            version=__version__,
        )
        counts = dict(sorted(ledger.counts.items()))
    write_notables(out / "exceptions.csv", summary)
    (out / "keys.json").write_bytes(canonical_json({"keys": [key.to_json() for key in brought.values()]}))
    (out / "checkpoint.txt").write_text(report.head.note, encoding="utf-8")
    shutil.copyfile(MAPPING_FILE, out / "controls.yaml")
    _write_documents(out, ledger_path, period, summary, checks, report, counts, made_at)
    return Package(path=out, period=period, report=report, summary=summary, checks=checks)


def _write_documents(
    out: Path,
    ledger_path: Path,
    period: Period,
    summary: Summary,
    checks: tuple[Checked, ...],
    report: LedgerReport,
    counts: dict[str, int],
    made_at: datetime,
) -> None:
    digests = {name: _sha256(ledger_path if name == LEDGER else out / name) for name in _FILES}
    files = [(name, media_type, about, digests[name]) for name, (media_type, about) in _FILES.items()]
    document = assessment_results(
        summary=summary,
        checks=checks,
        report=report,
        period=period,
        made_at=made_at,
        version=__version__,
        files=files,
    )
    (out / OSCAL).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    since, until = period.bounds
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "since": since,
        "until": until,
        "made_at": rfc3339(made_at),
        "ledger": {"origin": report.origin, "entries": report.entries, "root": report.root},
        "counts": counts,
        "files": {**digests, OSCAL: _sha256(out / OSCAL)},
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        with (folder / MANIFEST).open("rb") as stream:
            found = read_json(stream.read(MAX_LINE))
        match found:
            case {
                "format": str(format_),
                "version": str(version),
                "since": str(since),
                "until": str(until),
                "made_at": str(made_at),
            } if format_ == FORMAT:
                for time in (since, until, made_at):
                    time_of(time)
                return {"version": version, "since": since, "until": until, "made_at": made_at}
    except (OSError, ApprovalsError):
        pass
    raise VerificationError(
        f"{MANIFEST}: not the manifest of an evidence package of the form {FORMAT}; give its folder"
    )


def _check_version(folder: Path, version: str) -> None:
    if version != __version__:
        raise VerificationError(
            f"made by airflow-approvals {version}, this is {__version__}, which may write the "
            f"report in other words; verify it with {version}, or the ledger alone: airflow-approvals verify "
            f"{folder / LEDGER}"
        )


def _check_names(folder: Path) -> None:
    paths = {path.name: path for path in folder.iterdir()}
    expected = {*_FILES, OSCAL, MANIFEST}
    problems = [f"missing: {name}; ask for the whole package" for name in sorted(expected - paths.keys())]
    problems += [
        f"not of the package: {name}; take it out, or ask who put it there"
        for name in sorted(paths.keys() - expected)
    ]
    # What a link leads to is not handed on with the folder, and may be another file tomorrow.
    problems += [
        f"no file of its own: {name}; ask for the file itself"
        for name in sorted(expected & paths.keys())
        if paths[name].is_symlink() or not paths[name].is_file()
    ]
    if problems:
        raise VerificationError(" · ".join(problems))


def _check_brought(brought: PublicKeys, trusted: PublicKeys | None, ledger: LedgerFile) -> None:
    """Raise where a key that nobody vouches for would come into keys.json, and be trusted from there on."""
    strange = brought.keys() - (trusted or brought).keys() - set(ledger.recorded_keyids())
    if strange:
        raise VerificationError(
            f"{LEDGER}: its first line brings key {min(strange)}, which is neither among the keys that you "
            "gave nor on record in the ledger; do not use it, and ask who put it there"
        )


@contextmanager
def _in_file(name: str, kind: type[ApprovalsError] = ApprovalsError) -> Iterator[None]:
    """Say in every error of this kind which file of the package it is about."""
    try:
        yield
    except kind as error:
        error.add_note(name)
        raise


def _keys_of(ledger_path: Path) -> PublicKeys:
    with ledger_path.open("rb") as stream:
        return keys_brought_by(stream.readline(MAX_LINE))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
