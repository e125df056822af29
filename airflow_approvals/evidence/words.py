"""How facts are written for people: times, sizes, counts, and one case in plain English."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from airflow_approvals.core.moments import rfc3339
from airflow_approvals.evidence.cases import Answer, Case, Review
from airflow_approvals.evidence.reports import Pii, total

_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")
_VERBS = {
    "export": "export",
    "write": "write",
    "delete": "delete",
    "grant": "grant access",
    "rotate_key": "rotate a key",
}
_ENDS = {
    "denied": "It was denied",
    "expired": "It expired",
    "cancelled": "It was withdrawn",
    "superseded": "It was superseded",
    "revoked": "The approval was taken back",
    "lapsed": "The approval lapsed",
}
_UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
# Not assigned, and meant to stay unseen. Other characters that this Python does not know are shown as they
# are: a newer one may know them, and both must make the same package.
_RESERVED = ((0x2065, 0x2065), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF))
_APART = re.compile(r"\s|[“”]")
_SENTENCE_END = re.compile(r"[.!?;]\s|[“”\n]")


def visible(text: str) -> str:
    """Return `text` with every invisible character spelled out: nothing may repaint what an auditor reads."""
    if text.isprintable():
        return text
    return "".join(f"[U+{ord(char):04X}]" if _is_unseen(char) else char for char in text)


def quoted(text: str) -> str:
    """Return words of somebody else in quotes that they cannot end."""
    return "“" + text.replace("“", '"').replace("”", '"') + "”"


def counted(count: int, noun: str, many: str = "") -> str:
    """Return `1 row`, `2 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {many or f'{noun}s'}"


def when(time: str) -> str:
    """Return a time of an entry to the second: `2026-01-31 08:15:00 UTC`."""
    return f"{time[:10]} {time[11:19]} UTC" if time else ""


def moment(time: datetime) -> str:
    """Return an aware time the same way."""
    return when(rfc3339(time))


def size(count: int) -> str:
    """Return a number of bytes for people."""
    amount = float(count)
    for unit in _SIZES:
        if amount < 1024 or unit == _SIZES[-1]:
            return f"{count:,} bytes" if unit == "bytes" else f"{amount:,.1f} {unit}"
        amount /= 1024
    return f"{count:,} bytes"


def sentences(case: Case) -> Iterator[str]:
    """Yield what happened in one case, in order, one sentence each."""
    yield _asked(case)
    yield from _pii(case.pii)
    if case.questions:
        yield f"{counted(case.questions, 'question')} {_were(case.questions)} asked about it."
    for answer in case.answers:
        yield _answered(answer)
    if case.set_aside:
        by = ", ".join(answer.voter for answer in case.set_aside)
        what = "An earlier approval" if len(case.set_aside) == 1 else "Earlier approvals"
        yield f"{what} by {by} {_were(len(case.set_aside))} set aside, because the policy changed."
    if case.glass is not None:
        yield (
            f"Break glass: {case.glass['by']} of {case.glass['group']} granted it alone, from "
            f"{case.glass['channel']}, saying {quoted(case.glass['reason'])}."
        )
        yield from _reviewed(case.reviews)
    elif case.granted is not None:
        yield (
            f"No prompt was needed: standing approval {case.granted['standing_id']}, on the votes of "
            f"{', '.join(case.granted['by'])}."
        )
    yield from _end(case)


def demands(rule: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a policy demands, as the ledger holds its rules, one sentence each."""
    match = rule.get("match") or {}
    names = {"action": "", "source": "from ", "destination": "to ", "dag_id": "in "}
    covered = [f"{word}{' or '.join(match[key])}" for key, word in names.items() if match.get(key)]
    yield f"Covers {' '.join(covered)}."
    needed = [_needed(each) for each in rule.get("require") or ()]
    others = ", by different people" if len(needed) > 1 else ""
    yield f"Needs {', and '.join(needed)}{others}."
    for refused in rule.get("deny_if") or ():
        yield f"Refuses when {refused}."
    yield (
        "Who asks may approve it too."
        if rule.get("self_approval") == "allowed"
        else "Who asks cannot approve."
    )
    good_for = rule.get("receipt_valid_for")
    yield f"Expires after {rule.get('expires_after')}; an approval is good for {good_for}."
    if channels := rule.get("channels"):
        yield f"Takes answers from {', '.join(channels)} alone."
    if standing := rule.get("standing"):
        drift = ", ".join(standing["void_on"])
        yield f"May stand for {standing['max_days']} days, until {drift} has drifted."
    if glass := rule.get("break_glass"):
        yield f"In an emergency one of {glass['group']} may grant it alone."


def asked_by(case: Case) -> str:
    """Return who stands behind a case."""
    return ", ".join(case.requesters) or "nobody known"


def pii_cell(pii: Pii | None, *, after: bool) -> str:
    """Return the cells with findings before or after masking, for one cell of a table."""
    if pii is None:
        return "not scanned"
    counts = pii.after if after else pii.before
    if counts is None:
        return "not told"
    named = ", ".join(f"{name} {count:,}" for name, count in counts)
    return f"{total(counts):,}" + (f" ({named})" if named else "")


def _needed(rule: Mapping[str, Any]) -> str:
    count = rule["approvals"]
    when = f" when {rule['when']}" if rule.get("when") else ""
    return f"{count} {'approval' if count == 1 else 'approvals'} by {rule['group']}{when}"


def _asked(case: Case) -> str:
    verb = _VERBS.get(case.kind, case.kind)
    what = f" {counted(case.rows, 'row')} ({size(case.size or 0)})" if case.rows is not None else ""
    source = f" from {_apart(case.source)}" if case.source else ""
    to = f" to {_apart(case.destination)}" if case.destination else ""
    task = f", by the task {_phrase(case.task)}," if case.task else ""
    asked = "asked for a standing approval to" if case.standing else "asked to"
    days = f", for {counted(case.standing['days'], 'day')}" if case.standing else ""
    return f"{asked_by(case)}{task} {asked} {verb}{what}{source}{to}{days}."


def _pii(pii: Pii | None) -> Iterator[str]:
    if pii is None:
        yield "No report on personal data was given."
        return
    if pii.before is not None:
        cells = "cell" if total(pii.before) == 1 else "cells"
        yield f"Personal data found before masking: {pii_cell(pii, after=False)} {cells}."
    if pii.after is not None:
        yield f"After masking: {pii_cell(pii, after=True)} {'cell' if total(pii.after) == 1 else 'cells'}."
    if pii.verified is not None:
        alone = f" Its plan leaves alone what was found in {', '.join(pii.left)}." if pii.left else ""
        yield (
            f"Masking was verified.{alone}" if pii.verified else "Masking was not verified: values were left."
        )


def _answered(answer: Answer) -> str:
    groups = f" ({', '.join(answer.groups)})" if answer.groups else ""
    verb = "approved" if answer.verdict == "approve" else "denied"
    what = "their own request, as the policy allows," if answer.is_own else "it"
    reason = f", saying {quoted(answer.reason)}" if answer.reason else ""
    return f"{answer.voter}{groups} {verb} {what} from {answer.channel} on {when(answer.at)}{reason}."


def _reviewed(reviews: list[Review]) -> Iterator[str]:
    for review in reviews:
        remark = f", saying {quoted(review.remark)}" if review.remark else ""
        yield f"{review.by} looked at it on {when(review.at)}{remark}."
    if not reviews:
        yield "Nobody else had looked at it by the end of the period."


def _end(case: Case) -> Iterator[str]:
    if case.redeemed_at:
        yield f"The approval was used on {when(case.redeemed_at[0])}."
    for name in case.lent:
        yield f"The protected secret {_apart(name)} was lent for it."
    if case.published:
        same = "exactly the approved bytes" if case.is_as_approved else "OTHER bytes than were approved"
        yield f"Published {same if case.digests else 'as reported'} on {when(case.outcome_at)}."
    elif case.published is not None:
        yield f"Nothing was published: {_phrase(case.outcome_detail or 'the task reported a failure')}."
    elif case.redeemed_at:
        yield "What came of it was not reported by the end of the period."
    if case.ended_at and not any(answer.verdict == "deny" for answer in case.answers):
        why = case.ended_because or case.state
        yield f"{_ENDS.get(case.state, case.state)} on {when(case.ended_at)}: {_phrase(why)}."


def _apart(place: str) -> str:
    """Return an address as it is, or in quotes where a space in it could make it pass for more."""
    return quoted(place) if _APART.search(place) else place


def _phrase(text: str) -> str:
    """Return words as they are, or in quotes where they could pass for sentences of ours."""
    return quoted(text) if _SENTENCE_END.search(text) else text


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _is_unseen(char: str) -> bool:
    if char in "\n\t":
        return False
    return unicodedata.category(char) in _UNSEEN or any(
        first <= ord(char) <= last for first, last in _RESERVED
    )
