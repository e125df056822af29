"""One action on the page, without a template: there is one for every request, and this is thrice as fast."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from airflow_approvals.evidence.cases import Case
from airflow_approvals.evidence.words import counted, quoted, sentences, visible, when

_DIGESTS = 3
"""So many datasets are named by digest; actions.csv has all."""


def article(case: Case) -> str:
    """Return the HTML of one action; nothing of it can run, or repaint what stands beside it."""
    state, to = _text(case.state), f" to {_text(case.destination)}" if case.destination else ""
    why = f'<p class="why">{_text(quoted(case.why))}</p>\n' if case.why else ""
    facts = "".join(f"<dt>{name}</dt><dd>{told}</dd>" for name, told in _facts(case))
    return (
        f'<article id="r-{_text(case.id)}" class="{state}">\n'
        f'<h3><span class="state">{state}</span> {_text(case.kind)}{to}</h3>\n'
        f"<p>{_text(' '.join(sentences(case)))}</p>\n{why}<dl>{facts}</dl>\n</article>\n"
    )


def _facts(case: Case) -> Iterator[tuple[str, str]]:
    yield "Asked", when(_text(case.opened_at))
    yield "Decided", when(_text(case.decided_at)) or "not yet"
    yield "Policy", f"{_text(case.policy)} {_code(case.policy_digest[:12])}"
    for digest in case.digests[:_DIGESTS]:
        yield "SHA-256", _code(digest)
    if len(case.digests) > _DIGESTS:
        yield "", f"and {len(case.digests) - _DIGESTS:,} more datasets, all in actions.csv"
    yield "Request", _code(case.id)
    if case.decision_index is not None:
        receipt = f", receipt {_code(case.receipt_sha256[:12])}" if case.receipt_sha256 else ""
        yield "Ledger", f"entry {case.decision_index}{receipt}"
    if case.faults:
        yield "Left out", f"{counted(len(case.faults), 'entry', 'entries')} that cannot be told"
    if case.refusals:
        yield "Refused", counted(len(case.refusals), "attempt")


def _text(told: str) -> str:
    return escape(visible(told))


def _code(told: str) -> str:
    return f"<code>{_text(told)}</code>"
