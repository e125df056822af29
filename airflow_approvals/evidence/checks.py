"""The checks of a package: one question each, answered from the summary of the period.

That the ledger and every receipt verify is none of them: without that there is no package. Each check here
could be answered with no; tests/evidence/test_checks.py shows how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from airflow_approvals.evidence.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What one check found; `of` is how many there were to look at."""

    name: str
    title: str
    holds: bool
    found: int
    of: int
    told: str  # one sentence


@dataclass(frozen=True, kw_only=True)
class _Check:
    title: str
    count: Callable[[Summary], tuple[int, int]]  # as it should be, of so many
    told: str  # with {found}, {of} and {missing}


def checked(summary: Summary) -> tuple[Checked, ...]:
    """Return what every check finds; one that had nothing to look at holds, and says so."""
    return tuple(_answer(name, check, summary) for name, check in _CHECKS.items())


def check_names() -> frozenset[str]:
    """Return the names that controls.yaml may use."""
    return frozenset(_CHECKS)


def _answer(name: str, check: _Check, summary: Summary) -> Checked:
    found, of = check.count(summary)
    told = check.told.format(found=f"{found:,}", of=f"{of:,}", missing=f"{of - found:,}")
    if of == 0:
        told = "Nothing of this kind happened in the period."
    return Checked(name=name, title=check.title, holds=found == of, found=found, of=of, told=told)


_CHECKS: dict[str, _Check] = {
    "times_in_order": _Check(
        title="Do the times of the entries run forwards?",
        count=lambda summary: (summary.entries_in_order, summary.entries),
        told="{found} of {of} entries of the whole ledger are dated no earlier than those before them, to "
        "within five minutes.",
    ),
    "keys_on_record": _Check(
        title="Does the ledger itself know the keys that signed?",
        count=lambda summary: (summary.keys_on_record, summary.keys),
        told="{found} of {of} keys that signed the head or came with the ledger are on record in it.",
    ),
    "entries_readable": _Check(
        title="Does every entry hold what its kind must hold?",
        count=lambda summary: (
            summary.entries_read - len(summary.notable["unreadable"]),
            summary.entries_read,
        ),
        told="{found} of {of} entries that this report is made of can be told; left out of all else: "
        "{missing}.",
    ),
    "entries_complete": _Check(
        title="Does every request say what, when, who and under which policy?",
        count=lambda summary: (summary.cases - summary.incomplete, summary.cases),
        told="{found} of {of} requests have action, time, requester or task, and policy on record.",
    ),
    "approved_before_publish": _Check(
        title="Was everything approved before it was published?",
        count=lambda summary: (
            summary.published - len(summary.notable["without_approval"]),
            summary.published,
        ),
        told="{found} of {of} publications had an approval that was redeemed for them.",
    ),
    "published_as_approved": _Check(
        title="Was exactly that published which was approved?",
        count=lambda summary: (summary.published_as_approved, summary.published_datasets),
        told="{found} of {of} writes of datasets reported the digest that was approved as published.",
    ),
    "single_use": _Check(
        title="Was every approval used at most once?",
        count=lambda summary: (summary.used_once, summary.used_once + summary.used_more),
        told="{found} of {of} used approvals were used once.",
    ),
    "separation_of_duties": _Check(
        title="Did somebody else than the requester approve?",
        count=lambda summary: (summary.approved_by_others, summary.approvals),
        told="{found} of {of} approvals rest on others than those who asked; not so: {missing}.",
    ),
    "approvers_entitled": _Check(
        title="Was everybody who approved in a group that the policy names?",
        count=lambda summary: (summary.approved_by_entitled, summary.approvals),
        told="{found} of {of} approvals were given for groups that the policy of the day names.",
    ),
    "rules_met": _Check(
        title="Was every rule of the policy met, by different people?",
        count=lambda summary: (summary.rules_met, summary.approved_by_votes),
        told="{found} of {of} approvals by votes meet every rule on record, by different people, each in the "
        "rule's group at the time of the decision. The gate's own evaluation was run again for this.",
    ),
    "emergencies_explained": _Check(
        title="Does every emergency have a name and a reason?",
        count=lambda summary: (
            summary.grants["break_glass"] - summary.glass_without_reason,
            summary.grants["break_glass"],
        ),
        told="{found} of {of} break-glass uses name a person and a reason; each is listed for review.",
    ),
    "refusals_recorded": _Check(
        title="Does every refused attempt say who tried what, and why it was refused?",
        count=lambda summary: (summary.refusals_told, summary.refusals_entered),
        told="{found} of {of} refusals in the ledger are listed with who tried what, and why it was refused.",
    ),
    "standing_founded": _Check(
        title="Does every grant by a standing approval rest on one that people decided?",
        count=lambda summary: (
            summary.standing_grants - summary.standing_unfounded,
            summary.standing_grants,
        ),
        told="{found} of {of} such grants name a standing approval that was voted on and was in force.",
    ),
    "policy_on_record": _Check(
        title="Is every policy that applied on record?",
        count=lambda summary: (summary.policy_known, summary.cases),
        told="{found} of {of} requests stood under rules that the ledger holds word for word.",
    ),
    "masking_verified": _Check(
        title="Where personal data was scanned for, was what left verified?",
        count=lambda summary: (summary.pii_verified, summary.pii_published),
        told="{found} of {of} publications with a PII report are the very bytes whose masking was verified.",
    ),
}
