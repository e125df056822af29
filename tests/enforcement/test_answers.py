"""Airflow's Human-in-the-loop, governed: whose answer counts, which one is given, and what is on record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Annotated, Any
from uuid import uuid4

import jwt
import pytest
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.testclient import TestClient

from airflow_approvals.core.model import Channel, Person, State, Verdict
from airflow_approvals.enforcement import answers
from airflow_approvals.enforcement.answers import GATE, AnswerGuard
from airflow_approvals.enforcement.guard import Scope
from airflow_approvals.ports import RequestFilter
from airflow_approvals.triggers.approval import HOLD_BACK
from airflow_approvals.web.backend import Backend
from tests.web.site import Site, utc_now

POLICY = """
version: 1
groups: {reviewers: {users: [alice, bob, engineer]}}
policies:
  - name: two-answers
    match: {action: [answer], dag_id: ["pair*"]}
    require: [{group: reviewers, approvals: 2}]
  - name: one-answer
    match: {action: [answer]}
    require: [{group: reviewers}]
"""
PATH = "/api/v2/dags/{dag}/dagRuns/r/taskInstances/ask/-1/hitlDetails"


class FakeAirflow:
    """One question per DAG, asked by a task that waits."""

    def __init__(self, ti_ids: dict[str, str]) -> None:
        self.ti_ids = ti_ids
        self.subject = "Send the letters?"
        self.given: list[dict[str, Any]] = []
        self.refuses = False
        self.fails: list[str] = []  # with 500, call by call: "before" or "after" it took the answer
        self.asked_at = utc_now() - timedelta(minutes=1)
        self.states: list[str | None] = ["awaiting_input"]  # one for each look, the last for all after it
        self.app = FastAPI()
        path = PATH.replace("{dag}", "{dag_id}").replace("/-1/", "/{map_index}/")

        @self.app.get(path)
        def _question(
            dag_id: str, map_index: int, authorization: Annotated[str | None, Header()] = None
        ) -> Any:
            if authorization is None:
                raise HTTPException(401, "not logged in")
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return {
                "task_instance": {"id": self.ti_ids[dag_id], "task_id": "ask", "state": state},
                "created_at": self.asked_at.isoformat(),
                "options": ["Approve", "Reject", "Later"],
                "subject": self.subject,
                "response_received": bool(self.given),
                "chosen_options": self.given[-1]["chosen_options"] if self.given else None,
            }

        @self.app.patch(path)
        async def _answer(dag_id: str, map_index: int, request: Request) -> Any:
            return self._take(await request.json())

        @self.app.get("/execution/hitlDetails/{ti_id}")
        def _own(ti_id: str, authorization: Annotated[str, Header()]) -> Any:
            if authorization.partition(" ")[2] == "forged":
                raise HTTPException(403, "Invalid auth token")
            return {}

        @self.app.patch("/execution/hitlDetails/{ti_id}")
        async def _by_task(ti_id: str, request: Request) -> Any:
            self.given.append(await request.json())
            return {}

    def _take(self, answer: Any) -> Any:
        fails = self.fails.pop(0) if self.fails else ""
        if self.refuses:
            raise HTTPException(403, "not a respondent")
        if fails == "before":
            raise HTTPException(500, "database is locked")
        if self.given:
            raise HTTPException(409, "already answered")
        self.given.append(answer)
        if fails == "after":
            raise HTTPException(500, "database is locked")
        return answer


class Governed:
    def __init__(self, site: Site) -> None:
        self.site = site
        run = str(uuid4())
        self.ti_ids = {
            dag_id: site.add_task(dag_id=dag_id, run_id=run, task_id="ask", state="awaiting_input")
            for dag_id in ("pair", "single")
        }
        self.begin = len(site.ledger())
        self.airflow = FakeAirflow(self.ti_ids)
        backend = Backend(lambda: site.service, site.settings)
        self.paused: list[float] = []
        self.while_paused: Callable[[], None] = lambda: None
        guard = AnswerGuard(self.airflow.app, backend=backend, find_person=_person, pause=self._pause)
        self.client = TestClient(guard)

    async def _pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.while_paused()

    def answer(self, dag_id: str, name: str, *chosen: str, inputs: dict[str, Any] | None = None) -> Any:
        return self.client.patch(
            PATH.format(dag=dag_id),
            json={"chosen_options": list(chosen or ["Approve"]), "params_input": inputs or {}},
            headers={"Authorization": f"Bearer {name}"},
        )

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.site.ledger()[self.begin :]]

    def states(self, dag_id: str) -> list[State]:
        page = self.site.store.list_requests(RequestFilter(dag_id=dag_id, limit=500))
        return [one.state for one in page.requests if one.origin and one.origin.ti_id == self.ti_ids[dag_id]]


async def _person(scope: Scope) -> Person:
    token = dict(scope["headers"])[b"authorization"].decode()
    return Person(token.removeprefix("Bearer "))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    site = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    site.policy_file.write_text(POLICY)
    yield site
    site.store.close()


@pytest.fixture
def governed(shared: Site) -> Governed:
    return Governed(shared)


@pytest.mark.parametrize("map_index", ["-1", "-1.0", "-01", "%20-1", "+0", "1_0"])
def test_the_same_question_under_another_spelling_is_governed_too(governed: Governed, map_index: str) -> None:
    """FastAPI reads many texts as one number; each leads to the same question."""
    answer = governed.client.patch(
        PATH.format(dag="pair").replace("/-1/", f"/{map_index}/"),
        json={"chosen_options": ["Approve"], "params_input": {}},
        headers={"Authorization": "Bearer alice"},
    )
    assert answer.status_code == 202
    assert governed.airflow.given == []


def test_the_answer_that_meets_the_policy_is_given_and_its_outcome_is_on_record(governed: Governed) -> None:
    answer = governed.answer("single", "alice", inputs={"note": "go"})
    assert answer.status_code == 200
    assert governed.airflow.given == [{"chosen_options": ["Approve"], "params_input": {"note": "go"}}]
    assert governed.states("single") == [State.COMPLETED]
    assert governed.kinds() == [
        "request.opened",
        "vote.cast",
        "request.approved",
        "receipt.redeemed",
        "outcome.reported",
    ]


def test_two_people_must_give_the_same_answer(governed: Governed) -> None:
    assert governed.answer("pair", "alice").status_code == 202
    assert governed.answer("pair", "bob", "Later").status_code == 202
    assert not governed.airflow.given
    assert governed.answer("pair", "bob").status_code == 200
    assert len(governed.airflow.given) == 1


def test_one_person_counts_once(governed: Governed) -> None:
    governed.answer("pair", "alice")
    assert governed.answer("pair", "alice").status_code == 403
    assert not governed.airflow.given


def test_other_inputs_are_another_answer(governed: Governed) -> None:
    governed.answer("pair", "alice", inputs={"amount": 1})
    assert governed.answer("pair", "bob", inputs={"amount": 1_000_000}).status_code == 202
    assert not governed.airflow.given


def test_what_is_shown_anew_must_be_answered_anew(governed: Governed) -> None:
    governed.answer("pair", "alice")
    governed.airflow.subject = "Send all the letters?"
    assert governed.answer("pair", "bob").status_code == 202
    assert not governed.airflow.given


@pytest.mark.parametrize("name", ["engineer", "mallory"])
@pytest.mark.parametrize("chosen", ["Approve", "Reject", "Later"])
def test_neither_the_requester_nor_a_stranger_may_answer(governed: Governed, name: str, chosen: str) -> None:
    assert governed.answer("single", name, chosen).status_code == 403
    assert not governed.airflow.given
    assert governed.kinds()[-1] == "attempt.refused"


def test_one_no_is_enough_and_is_given_at_once(governed: Governed) -> None:
    governed.answer("pair", "alice")
    assert governed.answer("pair", "bob", "Reject").status_code == 200
    assert governed.airflow.given == [{"chosen_options": ["Reject"], "params_input": {}}]
    assert governed.states("pair") == [State.DENIED]


def test_after_a_no_nobody_can_say_yes(governed: Governed) -> None:
    governed.answer("single", "alice", "Reject")
    governed.airflow.given.clear()
    assert governed.answer("single", "bob").status_code == 403
    assert not governed.airflow.given


def test_an_answer_that_airflow_refuses_is_on_record_as_failed(governed: Governed) -> None:
    governed.airflow.refuses = True
    assert governed.answer("single", "alice").status_code == 403
    assert governed.states("single") == [State.FAILED]


@pytest.mark.parametrize(
    "fails", [["before"], ["before"] * len(answers.AGAIN), ["after"], ["before", "after"]]
)
def test_an_answer_that_airflow_failed_to_take_is_handed_on_again_and_once(
    governed: Governed, fails: list[str]
) -> None:
    governed.airflow.fails = list(fails)
    assert governed.answer("single", "alice").status_code == 200
    assert governed.airflow.given == [{"chosen_options": ["Approve"], "params_input": {}}]
    assert governed.paused == list(answers.AGAIN[: len(fails)])
    assert governed.states("single") == [State.COMPLETED]
    assert governed.kinds().count("vote.cast") == 1


def test_an_airflow_that_goes_on_failing_is_on_record_and_may_be_answered_anew(governed: Governed) -> None:
    governed.airflow.fails = ["before"] * (len(answers.AGAIN) + 1)
    assert governed.answer("single", "alice").status_code == 500
    assert not governed.airflow.given
    assert governed.states("single") == [State.FAILED]
    assert governed.answer("single", "alice").status_code == 200
    assert sorted(governed.states("single")) == [State.COMPLETED, State.FAILED]


def test_an_approval_through_another_channel_is_handed_on_by_the_next_answer(governed: Governed) -> None:
    governed.answer("pair", "alice")
    page = governed.site.store.list_requests(RequestFilter(dag_id="pair", states=(State.PENDING,), limit=1))
    (request,) = page.requests
    governed.site.service.cast_vote(
        Person("bob"),
        request.id,
        Verdict.APPROVE,
        reason="",
        revision=1,
        channel=Channel.SLACK,
        now=utc_now(),
    )
    assert not governed.airflow.given
    assert governed.answer("pair", "bob").status_code == 200
    assert len(governed.airflow.given) == 1


def test_an_answer_waits_until_its_task_has_paused(governed: Governed) -> None:
    governed.airflow.states = ["running", "queued", "running", "awaiting_input"]
    assert governed.answer("single", "alice").status_code == 200
    assert governed.paused == [answers.LOOK_AGAIN] * 3
    assert governed.kinds()[1] == "vote.cast"


@pytest.mark.parametrize("chosen", ["Approve", "Reject"])
def test_an_answer_waits_until_the_pause_is_old_enough(governed: Governed, chosen: str) -> None:
    def grow_older() -> None:
        assert not governed.airflow.given
        governed.airflow.asked_at -= timedelta(seconds=HOLD_BACK / 2)

    governed.while_paused = grow_older
    governed.airflow.asked_at = utc_now()
    assert governed.answer("single", "alice", chosen).status_code == 200
    assert len(governed.paused) == 2
    assert len(governed.airflow.given) == 1


@pytest.mark.parametrize("chosen", ["Approve", "Reject"])
def test_a_task_that_never_pauses_gets_no_answer_and_the_vote_stays(
    governed: Governed, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setattr(answers, "MAX_HOLD", -1)
    governed.airflow.states = ["running"]
    refused = governed.answer("single", "alice", chosen)
    assert (refused.status_code, refused.json()["type"]) == (503, "service-unavailable")
    assert "ask did not pause" in refused.json()["detail"]
    assert not governed.airflow.given
    governed.airflow.states = ["awaiting_input"]
    assert governed.answer("single", "alice", chosen).status_code == 200
    assert [each["chosen_options"] for each in governed.airflow.given] == [[chosen]]
    assert governed.kinds().count("vote.cast") == 1


BAD: dict[str, Any] = {
    "no JSON": {"content": b"{"},
    "no options": {"json": {}},
    "none chosen": {"json": {"chosen_options": []}},
    "an option that nobody offered": {"json": {"chosen_options": ["Yes"]}},
    "no list": {"json": {"chosen_options": "Approve"}},
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_what_is_no_answer_is_refused(governed: Governed, body: dict[str, Any]) -> None:
    headers = {"Authorization": "Bearer alice"}
    answer = governed.client.patch(PATH.format(dag="single"), headers=headers, **body)
    assert answer.status_code == 400
    assert not governed.airflow.given


def test_what_is_answered_stays_answered(governed: Governed) -> None:
    governed.answer("single", "alice")
    assert governed.answer("single", "bob").status_code == 400
    assert len(governed.airflow.given) == 1


def test_who_is_not_logged_in_gets_airflows_own_no(governed: Governed) -> None:
    answer = governed.client.patch(PATH.format(dag="single"), json={"chosen_options": ["Approve"]})
    assert (answer.status_code, answer.json()) == (401, {"detail": "not logged in"})
    assert governed.kinds() == []


def test_a_task_cannot_answer_and_its_attempt_is_on_record(governed: Governed) -> None:
    ti_id = governed.ti_ids["single"]
    token = jwt.encode({"sub": ti_id}, "a secret of the execution API, long enough")
    path, body = f"/execution/hitlDetails/{ti_id}", {"chosen_options": ["Approve"]}
    answer = governed.client.patch(path, json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
    assert not governed.airflow.given
    refused = governed.site.ledger()[-1]
    assert (refused["kind"], refused["actor"]) == ("attempt.refused", f"worker:{ti_id}")


def test_a_forged_token_leaves_no_trace(governed: Governed) -> None:
    path = f"/execution/hitlDetails/{governed.ti_ids['single']}"
    answer = governed.client.patch(path, json={}, headers={"Authorization": "Bearer forged"})
    assert answer.status_code == 403
    assert governed.kinds() == []


def test_the_requests_gate_names_the_answer(governed: Governed) -> None:
    governed.answer("pair", "alice")
    request = governed.site.store.list_requests(RequestFilter(dag_id="pair", limit=1)).requests[0]
    assert request.gate.startswith(GATE)
    assert request.action.parameters is not None
    assert request.action.parameters["chosen"] == ["Approve"]
    assert governed.airflow.subject not in str(request)
