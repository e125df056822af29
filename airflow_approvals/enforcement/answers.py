"""Airflow's own Human-in-the-loop under our policy: answers are votes, and given once they are approved.

Off unless `[approvals] govern_hitl` is on. An answer in Airflow's UI or API is a vote for exactly that answer
to exactly what was shown; the one that meets the policy is handed on to Airflow. One `Reject` is enough. An
answer to a task that has only just paused is held back for some seconds. An answer by a task, through the
execution API, is refused. What asks Airflow in its own process (a trigger, the scheduler at a timeout) is not
seen here; `doctor` shows what was answered that way.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import (
    ApprovalsError,
    InvalidRequestError,
    NotAllowedError,
    ServiceUnavailableError,
)
from airflow_approvals.core.model import Action, ApprovalRequest, Channel, Evidence, Person, State, Verdict
from airflow_approvals.enforcement.guard import (
    Answer,
    App,
    Message,
    Receive,
    Scope,
    Send,
    no_body,
    route_path,
    task_of,
)
from airflow_approvals.service import Opening
from airflow_approvals.triggers.approval import HOLD_BACK

if TYPE_CHECKING:
    from airflow_approvals.web.backend import Backend

GATE = "hitl:"
"""With this the gate's name begins, in a request for an answer."""
KIND = "answer"
"""The kind of action that policies match; its DAG is the other thing that they can."""
YES, NO = "Approve", "Reject"
"""The two options of Airflow's ApprovalOperator, and of common.ai's approvals."""
MAX_BODY = 1 << 20
MAX_HOLD = 60.0
"""Seconds that an answer waits for its task to pause; then whoever answered is told to do it again."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at a task that has not paused yet."""
AGAIN = (1.0, 2.0, 4.0)
"""Seconds before an answer is handed on again that Airflow failed to take: its database may be busy."""
ON_ITS_WAY = ("queued", "running")
"""States of a task that has asked and not paused yet."""

# As wide as the router's own patterns: FastAPI takes `-1.0` and ` -1` for the map index -1.
_BY_PERSON = re.compile(r"/api/v2/dags/([^/]+)/dagRuns/([^/]+)/taskInstances/([^/]+)/([^/]+)/hitlDetails/?")
_BY_TASK = re.compile(r"/execution/hitlDetails/([^/]+)/?")

log = logging.getLogger(__name__)

FindPerson = Callable[[Scope], Awaitable[Person]]
Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What Airflow asks people, as its API tells it."""

    ti_id: str
    task_id: str
    options: tuple[str, ...]
    is_answered: bool
    asked_at: datetime
    state: str | None  # of the task instance
    shown_sha256: str  # of subject, body, options, defaults and parameters

    @classmethod
    def told_by(cls, detail: dict[str, Any]) -> Question:
        instance = detail["task_instance"]
        shown = {name: detail.get(name) for name in ("subject", "body", "options", "defaults", "params")}
        return cls(
            ti_id=str(instance["id"]),
            task_id=str(instance["task_id"]),
            options=tuple(detail["options"]),
            is_answered=bool(detail["response_received"]),
            asked_at=datetime.fromisoformat(detail["created_at"]),
            state=instance["state"],
            shown_sha256=digest_of(json.loads(json.dumps(shown))),
        )

    def is_young(self, now: datetime) -> bool:
        """Tell whether Airflow might fail the task, or forget the answer, if it were given now."""
        return self.state in ON_ITS_WAY or (now - self.asked_at).total_seconds() < HOLD_BACK

    def opening(self, chosen: tuple[str, ...], inputs: Any) -> Opening:
        """Return what is asked for: that these options are chosen, with these inputs, for what was shown."""
        answer = {"chosen": sorted(chosen), "inputs_sha256": digest_of(inputs), "shown": self.shown_sha256}
        action = Action(kind=KIND, parameters={"task": {"task_id": self.task_id}, **answer})
        return Opening(action=action, evidence=Evidence(), gate=f"{GATE}{digest_of(answer)[:32]}")


class AnswerGuard:
    """ASGI middleware; `find_person` tells who is logged in, or raises; `pause` takes seconds."""

    def __init__(
        self, app: App, *, backend: Backend, find_person: FindPerson, pause: Pause = asyncio.sleep
    ) -> None:
        self._app = app
        self._backend = backend
        self._find_person = find_person
        self._pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("PATCH", "POST"):
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        if scope["method"] == "PATCH" and _BY_PERSON.fullmatch(path):
            await self._of_person(scope, receive, send)
        elif scope["method"] == "PATCH" and _BY_TASK.fullmatch(path):
            await self._of_task(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _of_person(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        seen = await self._asked(scope)
        if seen.status != 200:
            await seen.give(send)  # Airflow's own no: not logged in, not allowed, not there
            return
        try:
            question = Question.told_by(json.loads(seen.body))
            chosen, inputs = _answer_in(body, question)
            person = await self._find_person(scope)
            request = await self._backend.run(self._vote, person, question, chosen, inputs)
            if request.state is not State.PENDING:
                await self._until_paused(scope, question)
            if request.state is State.APPROVED:
                request = await self._backend.run(self._redeem, question.ti_id, request)
        except ApprovalsError as refusal:
            await _tell(send, _STATUS.get(type(refusal), 403), refusal.type, str(refusal))
            return
        if request.state is State.PENDING:
            told = f"counted as a vote; request {request.id} needs more of them before it is the answer"
            await _tell(send, 202, "counted", told, chosen_options=list(chosen), params_input=inputs)
            return
        await self._hand_on(scope, body, send, question.ti_id, request)

    def _vote(
        self, person: Person, question: Question, chosen: tuple[str, ...], inputs: Any
    ) -> ApprovalRequest:
        """Return the request after this vote."""
        service, now = self._backend.service, datetime.now(UTC)
        says_no = chosen == (NO,) and YES in question.options
        wanted = question.opening((YES,), {}) if says_no else question.opening(chosen, inputs)
        request = service.open_for_task(question.ti_id, wanted, request_id=str(uuid4()), now=now).request
        if request.state is (State.DENIED if says_no else State.APPROVED):
            return request  # decided before, and not given to Airflow yet
        return service.cast_vote(
            person,
            request.id,
            Verdict.DENY if says_no else Verdict.APPROVE,
            reason=f"answered {NO} in Airflow" if says_no else "",
            revision=request.revision,
            channel=Channel.PAGE,
            now=now,
        )

    def _redeem(self, ti_id: str, request: ApprovalRequest) -> ApprovalRequest:
        """Use the approval up: Airflow has the answer next."""
        now = datetime.now(UTC)
        return self._backend.service.redeem(ti_id, request.id, digest=request.action_digest, now=now)

    async def _until_paused(self, scope: Scope, question: Question) -> None:
        """Return when Airflow can take the answer; the vote is on record by then.

        A task that was answered before the scheduler has read that it paused is failed by Airflow 3.3.2, for
        the reason that `HOLD_BACK` gives.
        """
        begin = asyncio.get_running_loop().time()
        while question.is_young(datetime.now(UTC)):
            if asyncio.get_running_loop().time() - begin > MAX_HOLD:
                raise ServiceUnavailableError(
                    f"{question.task_id} did not pause in {MAX_HOLD:.0f} s; the vote counts: answer once more"
                )
            await self._pause(LOOK_AGAIN)
            seen = await self._asked(scope)
            if seen.status != 200:
                return  # Airflow's own no comes when the answer is handed on
            question = Question.told_by(json.loads(seen.body))

    async def _asked(self, scope: Scope) -> Answer:
        """Return what Airflow says of the question to whoever answers it."""
        return await self._called({**scope, "method": "GET", "headers": _bodiless(scope)}, no_body)

    async def _called(self, scope: Scope, receive: Receive) -> Answer:
        answer = Answer()
        await self._app({**scope}, receive, answer.take)
        return answer

    async def _hand_on(
        self, scope: Scope, body: bytes, send: Send, ti_id: str, request: ApprovalRequest
    ) -> None:
        answer = await self._handed_on(scope, body)
        given = 200 <= answer.status < 300
        if request.state is State.REDEEMED:
            service, now = self._backend.service, datetime.now(UTC)
            detail = "" if given else f"Airflow answered {answer.status}"
            try:
                await self._backend.run(
                    lambda: service.report_outcome(
                        ti_id, request.id, published=given, digest=None, detail=detail, now=now
                    )
                )
            except ApprovalsError as trouble:
                log.warning("request %s: its outcome could not be reported: %s", request.id, trouble)
        await answer.give(send)

    async def _handed_on(self, scope: Scope, body: bytes) -> Answer:
        """Return Airflow's word on the answer; after a failure of its own it is asked again."""
        answer = await self._called(scope, _replay(body))
        for pause in AGAIN:
            if answer.status < 500:
                break
            await self._pause(pause)
            seen = await self._asked(scope)
            if seen.status == 200 and _is_given(json.loads(seen.body), json.loads(body)):
                return seen  # it was taken, and the word of that was lost
            answer = await self._called(scope, _replay(body))
        return answer

    async def _of_task(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Whoever may not even read it has no token that Airflow takes: then nothing is put on record.
        seen = await self._asked(scope)
        if seen.status not in (200, 404):
            await seen.give(send)
            return
        ti_id, now = task_of(scope), datetime.now(UTC)
        refusal = NotAllowedError("a task may not answer what people are asked; log in to Airflow and answer")
        try:
            await self._backend.run(
                lambda: self._backend.service.record_refusal(
                    f"worker:{ti_id}", None, "answer for people", refusal, now=now
                )
            )
        except ApprovalsError as trouble:
            log.warning("a refusal could not be recorded: %s", trouble)
        await _tell(send, 403, refusal.type, str(refusal))


_STATUS: dict[type[ApprovalsError], int] = {InvalidRequestError: 400, ServiceUnavailableError: 503}


def _is_given(detail: dict[str, Any], answer: dict[str, Any]) -> bool:
    return bool(detail["response_received"]) and detail["chosen_options"] == answer["chosen_options"]


def _answer_in(body: bytes, question: Question) -> tuple[tuple[str, ...], Any]:
    try:
        told = json.loads(body)
        chosen, inputs = told["chosen_options"], told.get("params_input") or {}
    except (ValueError, KeyError, TypeError):
        raise InvalidRequestError("an answer is JSON with chosen_options") from None
    if not isinstance(chosen, list) or not chosen or not all(one in question.options for one in chosen):
        raise InvalidRequestError(f"chosen_options: expected some of {', '.join(question.options)}")
    if question.is_answered:
        raise InvalidRequestError("it was answered already")
    return tuple(chosen), inputs


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)[: MAX_BODY + 1]


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _bodiless(scope: Scope) -> list[tuple[bytes, bytes]]:
    about_body = (b"content-length", b"content-type", b"transfer-encoding", b"accept-encoding")
    return [(name, value) for name, value in scope["headers"] if name.lower() not in about_body]


async def _tell(send: Send, status: int, word: str, text: str, **facts: Any) -> None:
    body = json.dumps({**facts, "detail": text, "type": word}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
