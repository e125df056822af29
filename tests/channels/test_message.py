from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_approvals.channels.changes import Change, Changes, changes_of
from airflow_approvals.channels.slack.interactive import Place
from airflow_approvals.channels.slack.message import Standing, note_of, prompt_of
from airflow_approvals.channels.slack.modals import details_modal, link_modal, text_modal
from airflow_approvals.channels.slack.references import PromptRef
from airflow_approvals.channels.text import cut, escaped, visible
from airflow_approvals.core.errors import InvalidRequestError, StaleRevisionError
from airflow_approvals.core.model import (
    ApprovalRequest,
    Channel,
    Column,
    Drift,
    Grant,
    GrantKind,
    Outcome,
    Person,
    Question,
    StandingTerms,
    State,
)
from airflow_approvals.core.progress import Progress, RuleProgress
from tests.fake_slack.blockkit import BlockKitError, check_message, check_view, units
from tests.store.samples import NOON, a_request, decided

LINK = "https://airflow.example.com/approvals/requests/1"
PROGRESS = Progress(
    rules=(
        RuleProgress(
            group="data-stewards", needed=1, applies=True, because="always", met_by=(Person("alice"),)
        ),
        RuleProgress(group="security", needed=1, applies=True, because="always", met_by=()),
    )
)
STANDING = Standing(link=LINK, progress=PROGRESS)
PLACE = Place(channel="C1", ts="1.2")
REPORT = {
    "before": {
        "columns": [
            {
                "column": "mail",
                "cells_with_findings": 1200,
                "entities": [{"entity_type": "EMAIL_ADDRESS", "cells": 1200}],
            },
            {"column": "id", "cells_with_findings": 0, "entities": []},
        ]
    },
    "after": {"columns": [{"column": "mail", "cells_with_findings": 0, "entities": []}]},
    "verified": True,
    "residual": 0,
}
HOSTILE = {
    "mention": "<!channel> <!here> <@U1> <!subteam^S1>",
    "link": "<https://evil.example|Approve> https://evil.example",
    "emphasis": "*bold* _x_ `code` ~s~ :tada: > quote",
    "bidi": "outbox/\u202egnp.exe\u202c\u2066\u200f",
    "long": "x" * 10_000,
    "entities": "&" * 10_000,
    "emoji": "\U0001f600" * 10_000,
    "html": "<script>alert(1)</script>",
    "control": "a\x00b\x1bc\r\nd",
    "empty": "",
    "blank": "   ",
    "surrogate": "\ud800",
}


def text_of(payload: Any) -> str:
    """Return everything that is read, in order."""
    if isinstance(payload, dict):
        own = payload.get("text") if isinstance(payload.get("text"), str) else ""
        rest = "".join(text_of(value) for key, value in payload.items() if not isinstance(value, str))
        return f"{own}{rest}"
    return "".join(text_of(each) for each in payload) if isinstance(payload, list) else ""


def action_ids(payload: dict[str, Any]) -> list[str]:
    return [
        element["action_id"]
        for block in payload["blocks"]
        if block["type"] == "actions"
        for element in block["elements"]
    ]


def a_gated_task(shown: dict[str, Any]) -> dict[str, Any]:
    """Return the parameter in which a gated task says what it would do."""
    hidden = {"parameters": "5" * 64}
    return {
        "task_id": "clean",
        "operator": "vendor.SqlOperator",
        "fields": hidden,
        "arguments": {},
        "shown": shown,
    }


def hostile_request(words: str) -> ApprovalRequest:
    request = a_request()
    dataset = replace(
        request.evidence.datasets[0],
        uri=words,
        columns=tuple(Column(name=f"{words}{n}", type=words) for n in range(300)),
    )
    pii = {
        "before": {
            "columns": [
                {"column": f"{words}{n}", "entities": [{"entity_type": words, "cells": n}]} for n in range(99)
            ]
        },
        "verified": False,
    }
    question = Question(
        id=1, asked_by=Person(words), asked_at=NOON, text=words, channel=Channel.SLACK, answer=words
    )
    return replace(
        decided(request),
        state=State.PENDING,
        action=replace(
            request.action,
            kind=words,
            source=words,
            destination=words,
            justification=words,
            parameters={words: words, "task": a_gated_task({f"{words}{n}": words for n in range(20)})},
        ),
        evidence=replace(request.evidence, datasets=(dataset,) * 12, pii=pii),
        requesters=(Person(words),) * 30,
        origin=replace(request.origin, dag_id=words, run_id=words, task_id=words) if request.origin else None,
        policy=words,
        votes=tuple(replace(vote, reason=words, voter=Person(words)) for vote in decided(request).votes) * 30,
        questions=(question,) * 30,
        decided_because=words,
        outcome=Outcome(published=False, detail=words, reported_at=NOON),
    )


def test_a_prompt_tells_everything_a_decision_needs() -> None:
    request = a_request()
    request = replace(request, evidence=replace(request.evidence, pii=REPORT))
    prompt = prompt_of(request, STANDING)
    check_message(prompt)
    told = text_of(prompt["blocks"])
    for fact in (
        "export",
        "file:///staged/customers.parquet",
        "file:///outbox/customers.parquet",
        "5,000",
        "1: id",
        "1,200 cells in 1 column (EMAIL_ADDRESS 1,200)",
        "nothing found",
        "yes, 0 left over",
        "engineer",
        "monthly partner feed",
        "1 of 2: data-stewards done, security missing",
        "partner-export",
    ):
        assert fact in told
    assert action_ids(prompt) == [f"approvals.{kind}" for kind in ("approve", "deny", "ask", "details")]
    assert json.dumps(LINK) in json.dumps(prompt)
    assert str(int(request.expires_at.timestamp())) in json.dumps(prompt)


def test_a_prompt_says_what_a_gated_task_would_do_as_far_as_its_author_shows_it() -> None:
    request = a_request()
    told = {"task": a_gated_task({"sql": "DELETE FROM customers"})}
    prompt = prompt_of(replace(request, action=replace(request.action, parameters=told)), STANDING)
    check_message(prompt)
    words = text_of(prompt["blocks"])
    for fact in ("Runs: SqlOperator clean", "Its sql: DELETE FROM customers", "Not shown: parameters"):
        assert fact in words


def test_a_prompt_names_the_columns_that_the_plan_leaves_alone() -> None:
    request = a_request()
    left = {**REPORT, "after": REPORT["before"]}
    request = replace(request, evidence=replace(request.evidence, pii=left))
    prompt = prompt_of(request, STANDING)
    check_message(prompt)
    assert "yes, 0 left over; found and not masked in mail" in text_of(prompt["blocks"])


def test_a_button_carries_request_revision_and_content() -> None:
    request = a_request(revision=3)
    actions = next(block for block in prompt_of(request, STANDING)["blocks"] if block["type"] == "actions")
    for element in actions["elements"]:
        ref = PromptRef.from_value(element["value"])
        assert (ref.request_id, ref.revision, ref.digest) == (request.id, 3, request.action_digest)


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
def test_a_decided_prompt_keeps_all_facts_and_loses_the_buttons(state: State) -> None:
    request = a_request()
    before = text_of(prompt_of(request, STANDING)["blocks"][1:2])
    after = prompt_of(replace(decided(request), state=state), Standing(link=LINK))
    check_message(after)
    assert action_ids(after) == []
    assert before in text_of(after["blocks"])
    assert "approved by alice" in text_of(after["blocks"])
    assert "looks right" in text_of(after["blocks"])


def test_a_request_that_the_page_alone_may_answer_has_no_approve_button_and_says_why() -> None:
    prompt = prompt_of(a_request(), replace(STANDING, page_only="policy takes answers from page only"))
    check_message(prompt)
    assert action_ids(prompt) == ["approvals.ask", "approvals.details"]
    assert "policy takes answers from page only" in text_of(prompt)


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE.keys())
def test_words_from_outside_are_shown_as_words_and_break_no_limit(words: str) -> None:
    request = hostile_request(words)
    shown = [
        prompt_of(request, STANDING),
        prompt_of(replace(request, state=State.DENIED), Standing(link=LINK)),
        note_of("question.asked", request, 1),
        note_of("answer.given", request, 1),
    ]
    for message in shown:
        assert message is not None
        check_message(message)
    views = [
        details_modal(request, STANDING),
        *(text_modal(kind, request, PLACE, optional=False) for kind in ("approve", "deny", "ask")),
    ]
    for view in views:
        check_view(view)
    told = json.dumps([*shown, *views], ensure_ascii=False)
    assert not any(char in told for char in "\u202e\u202c\u2066\u200f\x00\x1b")
    assert "mrkdwn" not in told
    from slack_sdk.models.blocks import Block

    for message in shown:
        assert message is not None
        Block.parse_all(message["blocks"])


def test_what_cannot_be_seen_is_spelled_out_not_dropped() -> None:
    assert visible("a\u202eb\u3164\u2800") == "a[U+202E]b[U+3164][U+2800]"
    assert visible("grün 数据 \U0001f600") == "grün 数据 \U0001f600"


@pytest.mark.parametrize("limit", [1, 5, 24, 75, 400])
@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_text_is_never_longer_than_its_limit_and_no_entity_is_cut(words: str, limit: int) -> None:
    assert units(cut(words, limit)) <= limit
    safe = escaped(words, limit)
    assert units(safe) <= limit
    assert "<" not in safe
    assert safe.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").count("&") == 0


def test_both_ends_of_a_long_destination_stay() -> None:
    shown = cut("s3://partner-bucket/" + "x" * 900 + "/feed.parquet", 100)
    assert shown.startswith("s3://partner-bucket/")
    assert shown.endswith("/feed.parquet")


STALE = {
    "revision": {"revision": 2},
    "content": {"action_digest": "e" * 64},
}


@pytest.mark.parametrize("change", STALE.values(), ids=STALE.keys())
def test_a_button_of_another_revision_or_content_is_stale(change: dict[str, Any]) -> None:
    request = a_request()
    with pytest.raises(StaleRevisionError, match="has changed since this was shown"):
        PromptRef.of(request).check_shows(replace(request, **change))


NOT_OURS = [
    "",
    "{}",
    "[]",
    "null",
    '["x",1,"y"]',
    "[1,2,3]",
    '{"a":1}',
    "a" * 2000,
    f'["{"0" * 36}",1,"{"a" * 64}"]',
]


@pytest.mark.parametrize("value", [*NOT_OURS, PromptRef.of(a_request()).to_value().replace(",1,", ",true,")])
def test_a_button_value_that_we_did_not_write_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="not one of ours"):
        PromptRef.from_value(value)


def test_the_window_of_an_unknown_person_shows_the_code_and_where_to_enter_it() -> None:
    view = link_modal("ABCDE-FGHJK", "https://airflow.example.com/approvals/identity", 10)
    check_view(view)
    assert "ABCDE-FGHJK" in text_of(view)


def test_an_open_question_has_no_answer_note() -> None:
    question = Question(
        id=1, asked_by=Person("alice"), asked_at=NOON + timedelta(1), text="?", channel=Channel.SLACK
    )
    assert note_of("answer.given", a_request(questions=(question,)), 1) is None
    assert note_of("question.asked", a_request(), 1) is None


WRONG: dict[str, Any] = {
    "no text": {"blocks": []},
    "51 blocks": {"text": "x", "blocks": [{"type": "actions", "elements": [{}]}] * 51},
    "unknown block": {"text": "x", "blocks": [{"type": "image"}]},
    "unknown key": {
        "text": "x",
        "blocks": [{"type": "header", "text": {"type": "plain_text", "text": "x"}, "a": 1}],
    },
    "long header": {
        "text": "x",
        "blocks": [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}],
    },
    "mention": {"text": "<!channel>"},
    "mention in a section": {
        "text": "x",
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "<!here>"}}],
    },
    "doubled action": {
        "text": "x",
        "blocks": [
            {
                "type": "actions",
                "elements": [
                    {"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x"}}
                ]
                * 2,
            }
        ],
    },
    "script link": {
        "text": "x",
        "blocks": [
            {
                "type": "rich_text",
                "elements": [
                    {"type": "rich_text_section", "elements": [{"type": "link", "url": "javascript:x"}]}
                ],
            }
        ],
    },
}


@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG.keys())
def test_the_fake_slack_refuses_what_slack_would(message: dict[str, Any]) -> None:
    with pytest.raises(BlockKitError):
        check_message(message)


PRIOR = replace(
    a_request(),
    id="00000000-0000-4000-8000-0000000000aa",
    state=State.COMPLETED,
    decided_at=NOON - timedelta(days=7),
)


def buttons_of(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        element["action_id"]: element
        for block in message["blocks"]
        if block["type"] == "actions"
        for element in block["elements"]
    }


def test_the_prompt_tells_what_has_changed_since_the_last_approval() -> None:
    request = a_request()
    dataset = request.evidence.datasets[0]
    prior = replace(
        PRIOR, evidence=replace(request.evidence, datasets=(replace(dataset, rows=dataset.rows - 1000),))
    )
    shown = prompt_of(request, replace(STANDING, changes=changes_of(prior, request)))
    check_message(shown)
    told = text_of(shown["blocks"])
    assert "Changed since: request 00000000, approved" in told
    assert f"Rows: {dataset.rows - 1000:,} → {dataset.rows:,}" in told


def test_the_prompt_says_when_nothing_has_changed_and_when_there_is_nothing_to_compare_with() -> None:
    request = a_request()
    same = prompt_of(request, replace(STANDING, changes=Changes(prior=PRIOR, differences=())))
    assert "Changed: nothing since request 00000000" in text_of(same["blocks"])
    assert "nothing like it was approved before" in text_of(prompt_of(request, STANDING)["blocks"])
    failed = Changes(prior=replace(PRIOR, state=State.FAILED), differences=())
    told = text_of(prompt_of(request, replace(STANDING, changes=failed))["blocks"])
    assert "UTC, whose task then failed" in told


@pytest.mark.parametrize(
    ("published", "has_data", "word"),
    [
        (True, True, "published"),
        (True, False, "done"),
        (False, True, "not published"),
        (False, False, "not done"),
    ],
)
def test_what_came_of_an_approval_is_told_as_what_it_was_for(
    published: bool, has_data: bool, word: str
) -> None:
    request = replace(decided(a_request()), outcome=Outcome(published=published, detail="", reported_at=NOON))
    if not has_data:
        request = replace(request, evidence=replace(request.evidence, datasets=()))
    assert f"Write: {word}" in text_of(prompt_of(request, STANDING)["blocks"]).splitlines()


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE.keys())
def test_changes_from_outside_break_no_limit(words: str) -> None:
    differences = tuple(Change(what=f"Column {words}", was=words, now=words) for _ in range(300))
    changes = Changes(prior=PRIOR, differences=differences)
    check_message(prompt_of(a_request(), replace(STANDING, changes=changes)))


def test_a_high_risk_policy_asks_once_more_before_an_approval() -> None:
    shown = prompt_of(a_request(), replace(STANDING, is_high_risk=True))
    check_message(shown)
    buttons = buttons_of(shown)
    assert "Approve exactly this?" in json.dumps(buttons["approvals.approve"]["confirm"])
    assert [name for name, button in buttons.items() if "confirm" in button] == ["approvals.approve"]


STANDING_TERMS = StandingTerms(
    approved_id="00000000-0000-4000-8000-0000000000aa",
    days=30,
    dag_id="monthly",
    task_id="publish",
    gate="",
    destination="s3://partner/2026-*/**",
)


def test_an_approval_that_would_stand_says_so_in_the_title_the_facts_every_window_and_before_it_counts() -> (
    None
):
    request = replace(a_request(), standing=STANDING_TERMS)
    shown = prompt_of(request, STANDING)
    check_message(shown)
    assert "Approval needed for 30 days" in shown["text"]
    told = text_of(shown["blocks"])
    assert "a yes answers every later run of monthly / publish for 30 days" in told
    assert "Later destinations: s3://partner/2026-*/**" in told
    assert "Approve for 30 days?" in json.dumps(buttons_of(shown)["approvals.approve"]["confirm"])
    window = text_modal("approve", request, PLACE, optional=False)
    assert "a yes answers every later run" in text_of(window["blocks"])


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_terms_of_a_standing_approval_break_no_limit(words: str) -> None:
    terms = replace(STANDING_TERMS, dag_id=words, task_id=words, source=words, destination=words)
    drift = tuple(Drift(watched=words, was=words, now=words) for _ in range(40))
    request = replace(a_request(), standing=terms, voided="0" * 36, drift=drift)
    check_message(prompt_of(request, STANDING))


def test_what_was_granted_without_votes_says_by_whom() -> None:
    grant = Grant(kind=GrantKind.BREAK_GLASS, by=(Person("carol"),), reason="the partner's site is down")
    request = replace(decided(a_request()), granted=grant)
    told = text_of(prompt_of(request, STANDING)["blocks"])
    assert "BREAK GLASS: carol alone, in an emergency: the partner's site is down" in told
    stood = replace(grant, kind=GrantKind.STANDING, standing_id="abcdef12-0000")
    told = text_of(prompt_of(replace(request, granted=stood), STANDING)["blocks"])
    assert "Granted: by standing approval abcdef12, on the votes of carol" in told


def test_where_a_reason_is_asked_for_in_a_window_nothing_is_asked_before_it() -> None:
    shown = prompt_of(a_request(), replace(STANDING, is_high_risk=True, asks_reason=True))
    assert "confirm" not in json.dumps(shown)
