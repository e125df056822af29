"""Lineage held against the ledger: what moved into a gated place, and which approval let it.

The ledger is believed, it is signed; lineage is what somebody told. So an event that names an approval is
held against that approval, and one that names none is a movement without.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.policy_match import covers
from airflow_approvals.lineage.movements import BareEnd, Movement
from airflow_approvals.lineage.names import DatasetName, dataset_of

NEVER_USED = frozenset({"approved", "lapsed", "revoked"})
USED = frozenset({"redeemed", "completed", "failed"})


@dataclass(frozen=True, kw_only=True)
class Approval:
    """What the ledger says about one request."""

    id: str
    state: str
    job: str  # DAG and task that asked, as lineage names the job; empty where a person asked
    destination: str  # URI; empty where the action has none
    digests: tuple[str, ...]  # SHA-256 of what was approved; empty where no data was named
    published_digest: str | None
    was_approved: bool
    in_period: bool  # decided in it: only these can be missed


class Fault(StrEnum):
    """What can be wrong; those of `Reconciliation.broken` are movements that no approval covers."""

    UNCOVERED = "no approval"
    UNKNOWN = "unknown approval"
    NOT_APPROVED = "not approved"
    ELSEWHERE = "approved for elsewhere"
    DIGEST = "other bytes"
    TWICE = "used twice"
    AROUND = "ended without"
    UNUSED = "never used"
    UNSEEN = "not in lineage"


_NOTICES = frozenset({Fault.AROUND, Fault.UNUSED, Fault.UNSEEN})


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to look at."""

    fault: Fault
    told: str  # in one sentence
    request_id: str | None = None
    movement: Movement | BareEnd | None = None


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """What was looked at, and what was found."""

    movements: int
    gated: int  # of them, into gated places
    covered: int  # of those, by an approval of exactly this
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Movements that no approval covers; the others are approvals or ends without a movement."""
        return tuple(finding for finding in self.findings if finding.fault not in _NOTICES)


def reconcile(
    told: Iterable[Movement | BareEnd], approvals: Mapping[str, Approval], globs: Sequence[str]
) -> Reconciliation:
    """Hold what moved into places that `globs` cover, or that an approval was ever for, against it."""
    known = {dataset_of(each.destination) for each in approvals.values() if each.destination}
    gates = {each.job for each in approvals.values() if each.job}
    total, gated, findings, around = 0, 0, list[Finding](), list[Finding]()
    users: dict[str, list[Movement]] = defaultdict(list)
    for movement in told:
        if isinstance(movement, BareEnd):
            around += _around(movement, gates)
            continue
        total += 1
        if movement.request_id is None and not _is_gated(movement.dataset, globs, known):
            continue
        gated += 1
        finding = _fault_of(movement, approvals)
        if finding is not None:
            findings.append(finding)
        elif movement.request_id is not None:
            users[movement.request_id].append(movement)
    findings += _second_uses(users)
    covered = gated - len(findings)
    findings += _without_movement(approvals.values(), users.keys() | _named(findings))
    return Reconciliation(movements=total, gated=gated, covered=covered, findings=(*findings, *around))


def uri_of(dataset: DatasetName) -> str:
    """Return the URI of a dataset, as a policy's globs read it."""
    if dataset.namespace == "file":
        return f"file://{dataset.name}"
    return f"{dataset.namespace}/{dataset.name.lstrip('/')}"


def _is_gated(dataset: DatasetName, globs: Sequence[str], known: set[DatasetName]) -> bool:
    if dataset in known:
        return True
    try:
        return bool(globs) and covers(globs, uri_of(dataset))
    except InvalidRequestError:
        # A name that can be read in two ways could be one of them: it is shown rather than passed over.
        return "://" in uri_of(dataset)


def _fault_of(movement: Movement, approvals: Mapping[str, Approval]) -> Finding | None:
    """Return what is wrong with one movement into a gated place; None when its approval covers it."""
    if movement.request_id is None:
        return _finding(Fault.UNCOVERED, movement, "it names no approval")
    approval = approvals.get(movement.request_id)
    if approval is None:
        return _finding(Fault.UNKNOWN, movement, f"the ledger has no request {movement.request_id}")
    if not approval.was_approved or approval.state not in USED:
        return _finding(Fault.NOT_APPROVED, movement, f"request {approval.id} is {approval.state}")
    if not _is_for(approval, movement.dataset):
        return _finding(
            Fault.ELSEWHERE, movement, f"request {approval.id} was for {approval.destination or 'no place'}"
        )
    if approval.digests and movement.sha256 not in (None, *approval.digests):
        return _finding(
            Fault.DIGEST,
            movement,
            f"approved was sha256 {' '.join(approval.digests)}, written was {movement.sha256}",
        )
    if approval.digests and approval.published_digest not in (None, *approval.digests):
        return _finding(
            Fault.DIGEST,
            movement,
            f"approved was sha256 {' '.join(approval.digests)}, the outcome says {approval.published_digest}",
        )
    return None


def _is_for(approval: Approval, dataset: DatasetName) -> bool:
    """Tell whether an approval was for this dataset; lineage names tables by database, not by connection."""
    if not approval.destination:
        return True  # what was approved is a task, whatever it writes
    wanted = dataset_of(approval.destination)
    if wanted == dataset:
        return True
    is_table = approval.destination.startswith("sql://")
    return is_table and dataset.name.rpartition(".")[2] == wanted.name.rpartition("/")[2].rpartition(".")[2]


def _around(end: BareEnd, gates: set[str]) -> Iterator[Finding]:
    """Yield a task that has asked in other runs, and in this one ended well without an approval.

    Airflow tells no more of a task that was marked successful; what it would have written was not.
    """
    if end.job.rpartition("/")[2] in gates:
        told = f"{end.job} ended well in run {end.run_id} and carries no approval: was it marked successful?"
        yield Finding(fault=Fault.AROUND, movement=end, told=told)


def _second_uses(users: Mapping[str, list[Movement]]) -> Iterator[Finding]:
    for request_id, using in users.items():
        runs = list(dict.fromkeys(movement.run_id for movement in using))
        for run_id in runs[1:]:
            second = next(movement for movement in using if movement.run_id == run_id)
            told = f"run {runs[0]} has used request {request_id} already"
            yield _finding(Fault.TWICE, second, told)


def _without_movement(approvals: Iterable[Approval], seen: set[str]) -> Iterator[Finding]:
    for approval in approvals:
        if not approval.in_period or not approval.was_approved:
            continue
        if approval.state in NEVER_USED:
            told = f"it was approved and never used; it is {approval.state}"
            yield Finding(fault=Fault.UNUSED, request_id=approval.id, told=told)
        elif approval.state == "completed" and approval.id not in seen:
            told = f"{approval.destination or 'what it allowed'} was written, and lineage does not show it"
            yield Finding(fault=Fault.UNSEEN, request_id=approval.id, told=told)


def _named(findings: Iterable[Finding]) -> set[str]:
    return {finding.request_id for finding in findings if finding.request_id is not None}


def _finding(fault: Fault, movement: Movement, why: str) -> Finding:
    told = f"{movement.job} wrote {uri_of(movement.dataset)}: {why}"
    return Finding(fault=fault, told=told, request_id=movement.request_id, movement=movement)
