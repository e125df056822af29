"""One privileged action from its first to its last ledger entry, as it stood at the end of the period."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from airflow_approvals.evidence.reports import Pii, pii_of


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One vote that counted, or was set aside when the policy changed."""

    voter: str
    verdict: str
    channel: str
    at: str
    reason: str
    groups: tuple[str, ...]
    is_own: bool  # by somebody who asked


@dataclass(frozen=True, kw_only=True)
class Review:
    """Somebody else's look at an emergency afterwards."""

    by: str
    at: str
    remark: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An attempt that was refused, and why."""

    index: int
    at: str
    actor: str
    attempt: str
    kind: str  # the error's word
    because: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An entry that cannot be told, and why."""

    index: int
    at: str
    actor: str
    what: str


@dataclass(kw_only=True)
class Case:
    """What the ledger says about one request."""

    id: str
    state: str = "pending"
    opened_at: str = ""
    requesters: tuple[str, ...] = ()
    task: str = ""  # DAG, run and task; empty when a person asked by hand
    job: str = ""  # DAG and task, as lineage names the job
    kind: str = ""
    source: str = ""
    destination: str = ""
    why: str = ""
    policy: str = ""
    policy_digest: str = ""
    policy_digests: list[str] = field(default_factory=list)  # all it ever stood under
    rows: int | None = None
    size: int | None = None  # bytes
    digests: tuple[str, ...] = ()  # SHA-256 of the datasets
    asked: dict[str, Any] = field(default_factory=dict)  # action and evidence, as they stand in the ledger
    action_digest: str = ""  # of all that was asked for
    pii: Pii | None = None
    answers: list[Answer] = field(default_factory=list)
    set_aside: list[Answer] = field(default_factory=list)  # given under a policy that changed since
    regrouped: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # voters of other groups by the decision
    questions: int = 0
    decided_at: str = ""
    decided_because: str = ""
    decision_index: int | None = None
    decision_place: tuple[int, int] | None = None
    receipt_sha256: str | None = None
    granted: dict[str, Any] | None = None
    glass: dict[str, Any] | None = None  # who broke it, why, from where
    reviews: list[Review] = field(default_factory=list)  # of the broken glass
    standing: dict[str, Any] | None = None
    voided: str | None = None
    drift: list[dict[str, str]] = field(default_factory=list)
    redeemed_at: list[str] = field(default_factory=list)
    was_live: bool = False  # the approval was in force when it was first used
    is_covered: bool = False  # a live approval had been used before the outcome
    published: bool | None = None  # None: no outcome was reported
    published_digest: str | None = None
    outcome_at: str = ""
    outcome_detail: str = ""
    lent: list[str] = field(default_factory=list)  # protected connections and variables
    refusals: list[Refusal] = field(default_factory=list)
    ended_at: str = ""
    ended_because: str = ""
    entries: int = 0
    faults: list[Fault] = field(default_factory=list)  # entries that are left out of all this

    @property
    def was_approved(self) -> bool:
        return self.decision_place is not None

    @property
    def own_approvals(self) -> list[Answer]:
        """Approvals by those who asked: counted only where the policy allows it."""
        return [answer for answer in self.answers if answer.is_own and answer.verdict == "approve"]

    @property
    def own_grants(self) -> list[str]:
        """Those who asked, and whose yes a grant without votes rests on."""
        return [name for name in (self.granted or {}).get("by", ()) if name in self.requesters]

    @property
    def is_unused(self) -> bool:
        """Approved, and nothing was ever done with it."""
        return self.was_approved and self.standing is None and not self.redeemed_at

    @property
    def is_as_approved(self) -> bool:
        """What was published is what was approved; a dataset is compared by its digest."""
        return not self.digests or self.published_digest in self.digests

    @property
    def attempts_on_own(self) -> list[Refusal]:
        """Refused tries of those who asked to approve it themselves."""
        return [
            refusal
            for refusal in self.refusals
            if refusal.actor in self.requesters and refusal.attempt in ("approve", "break-glass")
        ]


def case_of(request_id: str, entries: Iterable[dict[str, Any]]) -> Case:
    """Return the case that the entries about one request, in order, make."""
    case = Case(id=request_id)
    for entry in entries:
        case.entries += 1
        is_faulty = entry["fault"] is not None
        if is_faulty:
            case.faults.append(fault_of(entry))
        tell = (_TELLERS_OF_ENDS if is_faulty else _TELLERS).get(entry["kind"])
        if tell is not None:  # kinds that are not known here are counted, and change no state
            tell(case, entry, entry["data"])
    return case


def fault_of(entry: dict[str, Any]) -> Fault:
    """Return what keeps an entry from being told."""
    told = f"entry {entry['index']} ({entry['kind']}): {entry['fault']}"
    return Fault(index=entry["index"], at=entry["time"], actor=entry["actor"], what=told)


def refusal_of(entry: dict[str, Any]) -> Refusal:
    """Return the refused attempt that an entry records."""
    data = entry["data"]
    return Refusal(
        index=entry["index"],
        at=entry["time"],
        actor=entry["actor"],
        attempt=str(data.get("attempt", "")),
        kind=str(data.get("type", "")),
        because=str(data.get("because", "")),
    )


def is_refusal(kind: str) -> bool:
    """Return whether entries of `kind` record that somebody was turned away."""
    return kind.endswith((".refused", ".denied", ".withheld")) and kind != "request.denied"


_Teller = Callable[[Case, dict[str, Any], dict[str, Any]], None]


def _opened(case: Case, entry: dict[str, Any], data: dict[str, Any]) -> None:
    action, evidence, origin = data["action"], data["evidence"], data.get("origin")
    case.opened_at, case.action_digest = entry["time"], data["action_digest"]
    case.asked = {"action": action, "evidence": evidence}
    case.requesters = tuple(data["requesters"])
    if origin:
        mapped = f" [{origin['map_index']}]" if origin["map_index"] >= 0 else ""
        case.task = f"{origin['dag_id']} · {origin['task_id']}{mapped} · {origin['run_id']}"
        case.job = f"{origin['dag_id']}.{origin['task_id']}"
    case.kind, case.why = action["kind"], action["justification"]
    case.source, case.destination = action["source"] or "", action["destination"] or ""
    _bound(case, data)
    datasets = evidence["datasets"]
    if datasets:
        case.rows = sum(dataset["rows"] for dataset in datasets)
        case.size = sum(dataset["size"] for dataset in datasets)
        case.digests = tuple(dataset["sha256"] for dataset in datasets)
    case.pii = pii_of(evidence["pii"])
    case.standing = data.get("standing")
    case.voided, case.drift = data.get("voided"), data.get("drift", [])


def _bound(case: Case, data: dict[str, Any]) -> None:
    case.policy, case.policy_digest = data["policy"], data["policy_digest"]
    case.policy_digests.append(case.policy_digest)


def _rebound(case: Case, _: dict[str, Any], data: dict[str, Any]) -> None:
    _bound(case, data)
    case.set_aside += case.answers
    case.answers.clear()


def _voted(case: Case, entry: dict[str, Any], data: dict[str, Any]) -> None:
    vote = data["vote"]
    case.answers.append(
        Answer(
            voter=vote["voter"],
            verdict=vote["verdict"],
            channel=vote["channel"],
            at=entry["time"],
            reason=vote["reason"],
            groups=tuple(vote["groups"]),
            is_own=vote["voter"] in case.requesters,
        )
    )


def _asked(case: Case, _: dict[str, Any], __: dict[str, Any]) -> None:
    case.questions += 1


def _approved(case: Case, entry: dict[str, Any], data: dict[str, Any]) -> None:
    _decided(case, entry, data)
    case.receipt_sha256 = data["receipt_sha256"]
    case.granted = data.get("granted")
    case.regrouped = {name: tuple(groups) for name, groups in data.get("regrouped", {}).items()}
    case.decision_place = entry["place"]


def _decided(case: Case, entry: dict[str, Any], data: dict[str, Any]) -> None:
    case.state = entry["kind"].removeprefix("request.")
    case.decided_at, case.decided_because = entry["time"], data.get("because", "")
    case.decision_index = entry["index"]


def _ended(case: Case, entry: dict[str, Any], data: dict[str, Any]) -> None:
    """Take a state that its name tells: denied, expired or cancelled decide; revoked and lapsed end."""
    if not case.decided_at:
        _decided(case, entry, data)
    else:
        case.state = entry["kind"].removeprefix("request.")
    case.ended_at, case.ended_because = entry["time"], data.get("because", "")


def _glass_broken(case: Case, entry: dict[str, Any], data: dict[str, Any]) -> None:
    case.glass = {
        "by": entry["actor"],
        "at": entry["time"],
        **{name: data.get(name) for name in ("reason", "channel", "group")},
    }


def _glass_reviewed(case: Case, entry: dict[str, Any], data: dict[str, Any]) -> None:
    case.reviews.append(Review(by=entry["actor"], at=entry["time"], remark=str(data.get("remark") or "")))


def _redeemed(case: Case, entry: dict[str, Any], _: dict[str, Any]) -> None:
    case.was_live = case.was_live or case.state == "approved"
    case.state = "redeemed"
    case.redeemed_at.append(entry["time"])


def _reported(case: Case, entry: dict[str, Any], data: dict[str, Any]) -> None:
    outcome = data["outcome"]
    case.is_covered = case.was_live
    case.published, case.published_digest = outcome["published"], outcome["digest"]
    case.outcome_at, case.outcome_detail = entry["time"], outcome["detail"]
    case.state = "completed" if case.published and case.is_as_approved else "failed"


def _lent(case: Case, _: dict[str, Any], data: dict[str, Any]) -> None:
    case.lent.append(str(data.get("name") or data.get("secret") or "a protected secret"))


def _refused(case: Case, entry: dict[str, Any], _: dict[str, Any]) -> None:
    case.refusals.append(refusal_of(entry))


_TELLERS_OF_ENDS: dict[str, _Teller] = {
    f"request.{state}": _ended
    for state in ("denied", "expired", "cancelled", "superseded", "revoked", "lapsed")
}
"""What takes an approval away takes it away, whatever else the entry lacks."""

_TELLERS: dict[str, _Teller] = {
    **_TELLERS_OF_ENDS,
    "request.opened": _opened,
    "request.rebound": _rebound,
    "vote.cast": _voted,
    "question.asked": _asked,
    "request.approved": _approved,
    "glass.broken": _glass_broken,
    "glass.reviewed": _glass_reviewed,
    "receipt.redeemed": _redeemed,
    "outcome.reported": _reported,
    "secret.lent": _lent,
    "attempt.refused": _refused,
}
