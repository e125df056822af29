"""What a period amounts to: counts, and everything in it that somebody should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.moments import time_of
from airflow_approvals.evidence.cases import (
    Answer,
    Case,
    Fault,
    Refusal,
    case_of,
    fault_of,
    is_refusal,
    refusal_of,
)
from airflow_approvals.evidence.ledger_file import LedgerFile
from airflow_approvals.evidence.quorum import Quorum, quorum_of
from airflow_approvals.evidence.reports import Pii, total
from airflow_approvals.evidence.words import counted, quoted


@dataclass(frozen=True, kw_only=True)
class Notable:
    """One thing to look at: when, which request (if any), who, and what, in a sentence."""

    at: str
    request_id: str
    who: str
    what: str


SECTIONS: dict[str, tuple[str, str]] = {
    "break_glass": ("Break-glass uses", "One person opened the gate alone in an emergency."),
    "own_approvals": (
        "Approvals by those who asked",
        "Counted only where a policy says `self_approval: allowed`.",
    ),
    "own_attempts": ("Self-approval attempts", "Refused: those who asked tried to approve it themselves."),
    "denied_attempts": ("Denied attempts", "Everything else that was refused, and why."),
    "not_as_approved": (
        "Published otherwise than approved",
        "Reported by the write itself: other bytes, or nothing at all.",
    ),
    "unreadable": (
        "Entries that cannot be told",
        "They verify, and lack what their kind must hold: nothing else here takes them into account.",
    ),
    "without_approval": ("Published without an approval", "The gate should make this impossible."),
    "unused": ("Unused and lapsed approvals", "Approved, and not used before the end of the period."),
    "standing": ("Standing approvals", "Given for a number of days, used, ended or voided by drift."),
    "policy_changes": ("Policy changes", "Each policy file that came into force, by digest."),
    "keys": ("Signing keys", "Public keys that came into use."),
    "identities": ("Linked identities", "Chat accounts that were linked to a person, or unlinked."),
    "other": ("Other events", "Kinds of ledger entries that no other section tells about."),
}
"""Every list of the report, with its title and what it holds."""

_ELSEWHERE = frozenset({"policy.loaded", "key.added", "identity.linked", "identity.unlinked"})


@dataclass(kw_only=True)
class Summary:
    """Counts over all cases of a period; memory grows with what is notable, not with what is ordinary."""

    cases: int = 0
    approvals: int = 0  # with a decision in the period or before, on cases of the period
    approved_by_others: int = 0
    approved_by_entitled: int = 0
    approved_by_votes: int = 0  # their own, or those on a standing approval
    rules_met: int = 0  # of those
    denied: int = 0
    states: Counter[str] = field(default_factory=Counter)
    channels: Counter[str] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    grants: Counter[str] = field(default_factory=Counter)
    published: int = 0
    published_datasets: int = 0  # where a digest was approved
    published_as_approved: int = 0  # of those
    used_once: int = 0
    used_more: int = 0
    rows_published: int = 0
    pii_published: int = 0  # published cases with a PII report
    pii_verified: int = 0  # of those, what was verified is what was published
    pii_measured: int = 0  # of those, the report tells of before and after, and is about what was published
    pii_before: int = 0  # cells in those; a cell that holds two types counts for both
    pii_after: int = 0
    entries: int = 0  # in the whole ledger
    entries_in_order: int = 0  # of time
    entries_read: int = 0  # for this report
    keys: int = 0
    keys_on_record: int = 0
    refusals: int = 0
    refusals_entered: int = 0  # entries of the period that record one
    refusals_told: int = 0  # of those that are listed: who tried what, and why it was refused
    glass_without_reason: int = 0
    standing_grants: int = 0
    standing_unfounded: int = 0
    policy_known: int = 0
    receipts: int = 0  # verified
    incomplete: int = 0  # cases that lack who, what, when or under which policy
    notable: dict[str, list[Notable]] = field(default_factory=lambda: {name: [] for name in SECTIONS})
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)  # of every policy on record, by digest
    applied: Counter[tuple[str, str]] = field(default_factory=Counter)  # cases by policy and its digest
    _quorums: dict[str, Quorum | None] = field(default_factory=dict, compare=False)  # of `rules`, as needed
    _standings: dict[str, Case | None] = field(default_factory=dict)

    def add(self, case: Case, ledger: LedgerFile) -> None:
        """Count one case: where it stands at the end of the period, and what was done within it."""
        since = ledger.period.bounds[0]
        self.cases += 1
        self.states[case.state] += 1
        self.policies[case.policy] += 1
        self.channels.update(answer.channel for answer in case.answers if answer.at >= since)
        if case.decided_at >= since:
            self.denied += case.state == "denied"
            self._count_decision(case, ledger)
        if case.redeemed_at and case.redeemed_at[-1] >= since:
            self.used_once += len(case.redeemed_at) == 1
            self.used_more += len(case.redeemed_at) > 1
        if case.outcome_at >= since:
            self._count_outcome(case)
        for name, notable in _notables(case):
            if notable.at >= since:
                self.notable[name].append(notable)
        for refusal in case.refusals:
            if refusal.at >= since:
                self._count_refusal(refusal)
        self.entries_read += case.entries
        for fault in case.faults:
            self._note_fault(fault, case.id)
        self.incomplete += not (
            case.kind and case.opened_at and case.policy_digest and (case.task or case.requesters)
        )
        self.policy_known += self.rules.keys() >= set(case.policy_digests)
        self.applied.update((case.policy, digest) for digest in set(case.policy_digests))

    def sort(self) -> None:
        """Bring every list into the order of time, once all is in it."""
        for found in self.notable.values():
            found.sort(key=lambda each: each.at)

    def add_keys(self, keyids: Collection[str], ledger: LedgerFile) -> None:
        """Take the keys that have signed, or that came along to be trusted."""
        self.keys = len(keyids)
        self.keys_on_record = len(set(keyids) & set(ledger.recorded_keyids()))

    def add_others(self, ledger: LedgerFile) -> None:
        """Take the ledger as a whole, and what is about no request: policies, identities, strangers."""
        self.entries, self.entries_in_order = ledger.entries, ledger.entries - ledger.backdated
        self.refusals_entered = sum(count for kind, count in ledger.counts.items() if is_refusal(kind))
        for entry in self._without_faults(ledger.earlier_entries()):
            self._learn_policies(entry)
        for entry in self._without_faults(ledger.other_entries()):
            self._learn_policies(entry)
            name, what = _told(entry)
            if is_refusal(entry["kind"]):
                self._count_refusal(refusal_of(entry))
            self.notable[name].append(Notable(at=entry["time"], request_id="", who=entry["actor"], what=what))

    def _without_faults(self, entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for entry in entries:
            self.entries_read += 1
            if entry["fault"] is None:
                yield entry
            else:
                self._note_fault(fault_of(entry), entry["request_id"] or "")

    def _note_fault(self, fault: Fault, request_id: str) -> None:
        # Of whenever it is: what it was to say could be about this period.
        noted = Notable(at=fault.at, request_id=request_id, who=fault.actor, what=fault.what)
        self.notable["unreadable"].append(noted)

    def _count_refusal(self, refusal: Refusal) -> None:
        self.refusals += 1
        self.refusals_told += bool(refusal.actor and refusal.attempt and refusal.because)

    def _learn_policies(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "policy.loaded":
            self.rules.update((digest_of(rule), rule) for rule in entry["data"]["rules"])

    def _count_decision(self, case: Case, ledger: LedgerFile) -> None:
        if not case.was_approved:
            return
        self.approvals += 1
        self.approved_by_others += not (case.own_approvals or case.own_grants)
        answers = self._answers_behind(case, ledger)
        self.approved_by_entitled += self._is_entitled(case, answers)
        if case.glass is None:
            self.approved_by_votes += 1
            self.rules_met += self._meets_rules(case, answers)
        if case.granted is None:
            return
        self.grants[case.granted["kind"]] += 1
        if case.granted["kind"] == "standing":
            self.standing_grants += 1
            self.standing_unfounded += not self._is_founded(case, ledger)
        elif not case.granted["reason"].strip() or case.glass is None:
            self.glass_without_reason += 1

    def _answers_behind(self, case: Case, ledger: LedgerFile) -> list[Answer]:
        """Return the votes that an approval rests on: its own, or those on the standing approval."""
        if case.granted is None:
            return _as_grouped(case, case.answers)
        standing = self._standing_of(case, ledger)
        voted = standing.answers if standing is not None else []
        return _as_grouped(case, [answer for answer in voted if answer.voter in case.granted["by"]])

    def _is_entitled(self, case: Case, answers: list[Answer]) -> bool:
        """Return whether all who approved spoke for a group that the policy names, as the ledger has both."""
        rule = self.rules.get(case.policy_digest)
        if rule is None:
            return False
        if case.glass is not None:
            return bool(case.glass["group"] == (rule.get("break_glass") or {}).get("group"))
        asked = {each["group"] for each in rule["require"]}
        approvals = [answer for answer in answers if answer.verdict == "approve"]
        return bool(approvals) and all(asked & set(answer.groups) for answer in approvals)

    def _meets_rules(self, case: Case, answers: list[Answer]) -> bool:
        digest = case.policy_digest
        if digest not in self._quorums:
            self._quorums[digest] = quorum_of(self.rules.get(digest))
        quorum = self._quorums[digest]
        return quorum is not None and quorum.is_met(case, answers)

    def _is_founded(self, case: Case, ledger: LedgerFile) -> bool:
        """Return whether the standing approval that a grant names was in force, and is the very one."""
        grant, standing = case.granted or {}, self._standing_of(case, ledger)
        return (
            standing is not None
            and standing.standing is not None
            and standing.receipt_sha256 == grant["standing_receipt_sha256"]
            and any(answer.verdict == "approve" for answer in standing.answers)
            and standing.decided_at <= case.decided_at
            and time_of(case.decided_at)
            < time_of(standing.decided_at) + timedelta(days=standing.standing["days"])
            and not (standing.ended_at and standing.ended_at < case.decided_at)
        )

    def _standing_of(self, case: Case, ledger: LedgerFile) -> Case | None:
        name = (case.granted or {}).get("standing_id") or ""
        if name not in self._standings:
            known = ledger.knows(name)
            self._standings[name] = case_of(name, ledger.entries_of(name)) if known else None
        return self._standings[name]

    def _count_outcome(self, case: Case) -> None:
        if not case.published:
            return
        self.published += 1
        self.published_datasets += bool(case.digests)
        self.published_as_approved += bool(case.digests) and case.is_as_approved
        self.rows_published += (case.rows or 0) if case.is_as_approved else 0  # of other bytes nobody knows
        if case.pii is not None:
            self.pii_published += 1
            if case.is_as_approved:  # a report says nothing about other bytes
                self._count_cells(case.pii)

    def _count_cells(self, pii: Pii) -> None:
        self.pii_verified += pii.verified is True
        before, after = total(pii.before), total(pii.after)
        if before is not None and after is not None:
            self.pii_measured += 1
            self.pii_before += before
            self.pii_after += after


def _as_grouped(case: Case, answers: list[Answer]) -> list[Answer]:
    """Return `answers` by the groups that their voters were in when this was decided."""
    return [
        replace(answer, groups=case.regrouped[answer.voter]) if answer.voter in case.regrouped else answer
        for answer in answers
    ]


def _notables(case: Case) -> Iterator[tuple[str, Notable]]:
    def notable(at: str, who: str, what: str) -> Notable:
        return Notable(at=at, request_id=case.id, who=who, what=what)

    if case.glass is not None:
        reason, channel = quoted(case.glass["reason"]), case.glass["channel"]
        told = f"{_doing(case)}; reason: {reason}; from {channel}; {_seen(case)}"
        yield "break_glass", notable(case.glass["at"], case.glass["by"], told)
    for answer in case.own_approvals:
        yield "own_approvals", notable(answer.at, answer.voter, f"{_doing(case)}, from {answer.channel}")
    for name in case.own_grants:
        yield "own_approvals", notable(case.decided_at, name, f"{_doing(case)}: {case.decided_because}")
    own = case.attempts_on_own
    for refusal in case.refusals:
        name = "own_attempts" if refusal in own else "denied_attempts"
        yield name, notable(refusal.at, refusal.actor, _attempted(refusal))
    if case.published is not None and not (case.published and case.is_as_approved):
        told = case.outcome_detail or "other bytes than were approved"
        yield "not_as_approved", notable(case.outcome_at, _mover(case), f"{_doing(case)}: {told}")
    if case.published and not case.is_covered:
        yield "without_approval", notable(case.outcome_at, _mover(case), _doing(case))
    if case.is_unused:
        state = case.state if case.state != "approved" else "neither used nor ended"
        yield (
            "unused",
            notable(case.ended_at or case.decided_at, ", ".join(_by(case)), f"{_doing(case)}: {state}"),
        )
    yield from (("standing", notable(*told)) for told in _standing(case))


def _standing(case: Case) -> Iterator[tuple[str, str, str]]:
    if case.standing is not None:
        days, gate = case.standing["days"], f"{case.standing['dag_id']} · {case.standing['task_id']}"
        ended = f"; {case.ended_because}" if case.ended_because else ""
        told = f"asked for {counted(days, 'day')} of {_doing(case)} by {gate}: {case.state}{ended}"
        yield case.ended_at or case.decided_at or case.opened_at, ", ".join(case.requesters), told
    if case.granted is not None and case.granted["kind"] == "standing":
        told = f"{_doing(case)}: approved by standing approval {case.granted['standing_id']}"
        yield case.decided_at, ", ".join(case.granted["by"]), told
    if case.voided is not None:
        drift = "; ".join(f"{each['watched']}: {each['was']}, now {each['now']}" for each in case.drift)
        yield case.opened_at, case.task, f"standing approval {case.voided} was voided by drift: {drift}"


def _by(case: Case) -> tuple[str, ...]:
    if case.granted is not None:
        return tuple(case.granted["by"])
    return tuple(answer.voter for answer in case.answers if answer.verdict == "approve")


def _doing(case: Case) -> str:
    rows = f" of {counted(case.rows, 'row')}" if case.rows is not None else ""
    to = f" to {case.destination}" if case.destination else ""
    return f"{case.kind}{rows}{to}"


def _seen(case: Case) -> str:
    if not case.reviews:
        return "nobody else had looked at it by the end of the period"
    last = case.reviews[-1]
    return f"looked at by {last.by}" + (f": {quoted(last.remark)}" if last.remark else "")


def _mover(case: Case) -> str:
    return case.task or ", ".join(case.requesters)


def _attempted(refusal: Refusal, request_id: str = "") -> str:
    of = f" of {request_id}" if request_id else ""
    return f"{refusal.attempt or 'an attempt'}{of}: {refusal.because or refusal.kind}"


def _told(entry: dict[str, Any]) -> tuple[str, str]:
    """Return which list an entry about no request belongs to, and what it says."""
    kind, data = entry["kind"], entry["data"]
    if is_refusal(kind):
        return "denied_attempts", _attempted(refusal_of(entry), entry["request_id"] or "")
    if kind == "policy.loaded":
        return "policy_changes", f"{', '.join(data['policies'])}; digest {data['digest']}"
    if kind == "key.added":
        return "keys", f"key {data['keyid']}"
    if kind in _ELSEWHERE:
        word = kind.removeprefix("identity.")
        account = f"{data.get('provider')} account {data.get('user_id')} of {data.get('team_id')}"
        return "identities", f"{word}: {account}, which is {data.get('person')}'s"
    named = f": {data.get('kind')} {data.get('name')}" if kind.startswith("secret.") else ""
    return "other", f"{kind}{named}"
