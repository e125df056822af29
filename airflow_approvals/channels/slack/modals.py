"""The windows that open from a prompt: a reason, a question, all details, how to link a Slack account."""

from __future__ import annotations

import json
from collections.abc import Iterator

from airflow_approvals.channels.findings import findings_of
from airflow_approvals.channels.gated_facts import TASK, gated_facts
from airflow_approvals.channels.slack import blocks
from airflow_approvals.channels.slack.blocks import Fact, Json
from airflow_approvals.channels.slack.interactive import Place
from airflow_approvals.channels.slack.message import Standing, summary_rows
from airflow_approvals.channels.slack.references import PromptRef
from airflow_approvals.channels.text import cut
from airflow_approvals.core.model import ApprovalRequest

MAX_COLUMNS = 60
_TEXT = {
    "approve": ("Approve", "Why is this right?"),
    "deny": ("Deny", "Why must this not happen?"),
    "ask": ("Ask", "What do you want to know?"),
}


def text_modal(kind: str, request: ApprovalRequest, place: Place | None, *, optional: bool) -> Json:
    """Return the window that asks for a reason (`approve`, `deny`) or a question (`ask`)."""
    title, label = _TEXT[kind]
    where = [] if place is None else [place.channel, place.ts]
    metadata = json.dumps([PromptRef.of(request).to_value(), *where])
    shown = [
        *blocks.facts(summary_rows(request), block_id="facts"),
        blocks.text_input("text", "text", label, optional=optional),
    ]
    return blocks.modal(f"approvals.{kind}", f"{title} this request", shown, submit=title, metadata=metadata)


def details_modal(request: ApprovalRequest, standing: Standing) -> Json:
    """Return everything about a request that fits; the page has the rest."""
    shown = blocks.facts(list(_details(request)), block_id="details")[:20]
    shown.append(blocks.rich_text([blocks.link(standing.link, "All of it in Airflow")], "page"))
    return blocks.modal("approvals.details", "Details", shown)


def notice_modal(words: str) -> Json:
    """Return the window that says why something was not done."""
    return blocks.modal("approvals.notice", "Not done", blocks.facts([("Why", words)], block_id="notice"))


def link_modal(code: str, link: str, minutes: int) -> Json:
    """Return the window that tells somebody unknown how to become known."""
    return blocks.modal("approvals.link", "Who are you?", _introduction(code, link, minutes))


def link_view(code: str, link: str, minutes: int) -> Json:
    """Return the Home tab that tells somebody unknown how to become known."""
    return {
        "type": "home",
        "blocks": [blocks.header("Who are you?"), *_introduction(code, link, minutes)],
    }


def _introduction(code: str, link: str, minutes: int) -> list[Json]:
    rows: list[Fact] = [
        ("Your Slack account is not linked", "nobody knows yet which Airflow login is yours"),
        ("Your code", code),
        ("What to do", f"log in to Airflow and enter it at the address below within {minutes} minutes"),
        ("Or in a terminal", f"airflow-approvals identity link {code}"),
        ("Keep it to yourself", "whoever enters it gives this Slack account their own votes"),
    ]
    return [
        *blocks.facts(rows, block_id="link"),
        blocks.rich_text([blocks.link(link, "Link my Slack account")], "page"),
    ]


def _details(request: ApprovalRequest) -> Iterator[Fact]:
    yield "Request", request.id
    yield "Action digest", request.action_digest
    yield "Policy", f"{request.policy}, digest {request.policy_digest}"
    for name, value in sorted((request.action.parameters or {}).items())[:20]:
        does = gated_facts(value) if name == TASK else ()
        for label, words in does or ((f"Parameter {name}", json.dumps(value, ensure_ascii=False)),):
            yield cut(label, 70), words
    for dataset in request.evidence.datasets[:10]:
        yield "Dataset", f"{dataset.uri} ({dataset.format})"
        yield "SHA-256", dataset.sha256
        yield "Size", f"{dataset.rows:,} rows, {dataset.size:,} bytes, {len(dataset.files)} files"
        for column in dataset.columns[:MAX_COLUMNS]:
            null = "" if column.nullable else ", not null"
            yield "Column", f"{cut(column.name, 200)} ({column.type}{null})"
    pii = request.evidence.pii
    if isinstance(pii, dict):
        for label, report in (("PII before", pii.get("before")), ("PII after", pii.get("after"))):
            found = findings_of(report)
            for column_name, cells in found.columns[:MAX_COLUMNS] if found else ():
                yield label, f"{cells:,} cells in {cut(column_name, 200)}"
    for vote in request.votes:
        yield (
            vote.verdict.capitalize(),
            f"{vote.voter}, {vote.cast_at:%Y-%m-%d %H:%M} UTC, {vote.channel}: {vote.reason}",
        )
    for question in request.questions:
        yield f"Question {question.id}", f"{question.asked_by}: {question.text}"
        yield f"Answer {question.id}", question.answer or "not answered yet"
