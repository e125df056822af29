"""The routes that change something: who may call is settled here, what may happen by the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse

from airflow_approvals.core.errors import ApprovalsError, InvalidRequestError
from airflow_approvals.core.model import ApprovalRequest, Channel
from airflow_approvals.core.worker_token import WorkerClaims
from airflow_approvals.service import Opened, Opening
from airflow_approvals.web.auth import AuthenticatedRoute, caller_of
from airflow_approvals.web.backend import Backend, new_id, now
from airflow_approvals.web.callers import (
    Caller,
    Users,
    actor_of,
    check_may_see,
    policy_file_or_none,
    the_task,
    the_user,
)
from airflow_approvals.web.deliveries import ChannelsBackend
from airflow_approvals.web.ledger import bundle_of
from airflow_approvals.web.schemas import (
    AnswerBody,
    BreakGlassBody,
    OpeningBody,
    OutcomeBody,
    QuestionBody,
    ReasonBody,
    RedeemBody,
    ReviewBody,
    StandingBody,
    VoteBody,
)
from airflow_approvals.web.views import RequestId, request_view

router = APIRouter(route_class=AuthenticatedRoute)


class Call:
    """One authenticated call and what it may work with."""

    def __init__(self, request: Request) -> None:
        self.backend: Backend = request.app.state.backend
        self.users: Users = request.app.state.users
        self.channels: ChannelsBackend | None = request.app.state.channels
        self.caller: Caller = caller_of(request)

    @asynccontextmanager
    async def refusals_recorded(self, attempt: str, request_id: str | None = None) -> AsyncIterator[None]:
        """Put what is refused before it reaches the service into the ledger too."""
        try:
            yield
        except ApprovalsError as refusal:
            await self.backend.run(self._record, attempt, request_id, refusal)
            self.backend.events.wake()
            raise

    async def seen(self, request_id: str) -> ApprovalRequest:
        """Return the request; one that the caller may not see does not exist."""
        return await self.backend.run(self._seen, request_id)

    def _seen(self, request_id: str) -> ApprovalRequest:
        service = self.backend.service
        request = service.store.get_request(request_id)
        check_may_see(self.users, self.caller, request, policy_file_or_none(service.policies))
        return request

    def _record(self, attempt: str, request_id: str | None, refusal: ApprovalsError) -> None:
        self.backend.service.record_refusal(actor_of(self.caller), request_id, attempt, refusal, now=now())


def this_call(request: Request) -> Call:
    """Return the call; a function, because older FastAPI cannot read the annotations of a class."""
    return Call(request)


ThisCall = Annotated[Call, Depends(this_call)]


@router.post("/requests", status_code=201, responses={200: {"model": ApprovalRequest}})
async def open_request(
    call: ThisCall,
    body: OpeningBody,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> JSONResponse:
    """Ask for approval. A worker's call may be repeated; a person's needs an Idempotency-Key for that."""
    opened = await call.backend.run(_open, call, body, idempotency_key)
    call.backend.events.wake()
    return JSONResponse(request_view(opened.request), status_code=201 if opened.created else 200)


def _open(call: Call, body: OpeningBody, key: str | None) -> Opened:
    opening = Opening(action=body.action, evidence=body.evidence, gate=body.gate, policy=body.policy)
    service = call.backend.service
    if isinstance(call.caller, WorkerClaims):
        ti_id = the_task(call.caller, None)
        return service.open_for_task(ti_id, opening, request_id=new_id(), now=now())
    if key is None:
        raise InvalidRequestError(
            "Idempotency-Key: the header is missing; send a new one for each new request"
        )
    return service.open_for_person(call.caller.person, opening, key=key, request_id=new_id(), now=now())


@router.post("/requests/{request_id}/votes")
async def vote(call: ThisCall, request_id: RequestId, body: VoteBody) -> JSONResponse:
    """Approve or deny what was seen at `revision`."""
    async with call.refusals_recorded(body.verdict.value, request_id):
        user = the_user(call.caller)
        await call.seen(request_id)
    voted = await call.backend.run(
        lambda: call.backend.service.cast_vote(
            user.person,
            request_id,
            body.verdict,
            reason=body.reason,
            revision=body.revision,
            channel=body.channel,
            now=now(),
        )
    )
    return _changed(call, voted)


@router.post("/requests/{request_id}/questions")
async def ask(call: ThisCall, request_id: RequestId, body: QuestionBody) -> JSONResponse:
    """Ask for more context; the request stays open."""
    async with call.refusals_recorded("ask", request_id):
        user = the_user(call.caller)
        await call.seen(request_id)
    asked = await call.backend.run(
        lambda: call.backend.service.ask(user.person, request_id, body.text, channel=Channel.API, now=now())
    )
    return _changed(call, asked)


@router.post("/requests/{request_id}/answers")
async def answer(call: ThisCall, request_id: RequestId, body: AnswerBody) -> JSONResponse:
    """Answer a question, as the requester or as the task that asked."""
    async with call.refusals_recorded("answer", request_id):
        if isinstance(call.caller, WorkerClaims):
            the_task(call.caller, None)
        await call.seen(request_id)
    answered = await call.backend.run(_answer, call, request_id, body)
    return _changed(call, answered)


def _answer(call: Call, request_id: str, body: AnswerBody) -> ApprovalRequest:
    service, caller = call.backend.service, call.caller
    if isinstance(caller, WorkerClaims):
        return service.answer_for_task(caller.subject, request_id, body.question_id, body.text, now=now())
    return service.answer(caller.person, request_id, body.question_id, body.text, now=now())


@router.post("/requests/{request_id}/cancel")
async def cancel(call: ThisCall, request_id: RequestId, body: ReasonBody) -> JSONResponse:
    """Withdraw a pending request, as its requester or as an admin."""
    async with call.refusals_recorded("cancel", request_id):
        user = the_user(call.caller)
        await call.seen(request_id)
    cancelled = await call.backend.run(
        lambda: call.backend.service.cancel(user.person, request_id, reason=body.reason, now=now())
    )
    return _changed(call, cancelled)


@router.post("/requests/{request_id}/revoke")
async def revoke(call: ThisCall, request_id: RequestId, body: ReasonBody) -> JSONResponse:
    """Take an approval back before it is used, as an approver or as an admin."""
    async with call.refusals_recorded("revoke", request_id):
        user = the_user(call.caller)
        await call.seen(request_id)
    revoked = await call.backend.run(
        lambda: call.backend.service.revoke(user.person, request_id, reason=body.reason, now=now())
    )
    return _changed(call, revoked)


@router.post("/requests/{request_id}/standing", status_code=201, responses={200: {"model": ApprovalRequest}})
async def open_standing(call: ThisCall, request_id: RequestId, body: StandingBody) -> JSONResponse:
    """Ask that the approval of this request shall stand for some days; votes decide."""
    async with call.refusals_recorded("standing", request_id):
        user = the_user(call.caller)
        await call.seen(request_id)
    opened = await call.backend.run(
        lambda: call.backend.service.open_standing(
            user.person,
            request_id,
            days=body.days,
            source=body.source,
            destination=body.destination,
            new_id=new_id(),
            now=now(),
        )
    )
    call.backend.events.wake()
    return JSONResponse(request_view(opened.request), status_code=201 if opened.created else 200)


@router.post("/requests/{request_id}/break-glass")
async def break_glass(call: ThisCall, request_id: RequestId, body: BreakGlassBody) -> JSONResponse:
    """Approve alone and at once, as a member of the policy's `break_glass` group, with a reason."""
    async with call.refusals_recorded("break-glass", request_id):
        user = the_user(call.caller)
        await call.seen(request_id)
    granted = await call.backend.run(
        lambda: call.backend.service.break_glass(
            user.person,
            request_id,
            reason=body.reason,
            revision=body.revision,
            channel=body.channel,
            now=now(),
        )
    )
    return _changed(call, granted)


@router.post("/requests/{request_id}/review")
async def review(call: ThisCall, request_id: RequestId, body: ReviewBody) -> JSONResponse:
    """Put on record that an emergency grant was looked at afterwards, by somebody who had no part in it."""
    async with call.refusals_recorded("review", request_id):
        user = the_user(call.caller)
        await call.seen(request_id)
    reviewed = await call.backend.run(
        lambda: call.backend.service.review_glass(user.person, request_id, remark=body.remark, now=now())
    )
    return _changed(call, reviewed)


@router.post("/requests/{request_id}/redeem")
async def redeem(call: ThisCall, request_id: RequestId, body: RedeemBody) -> JSONResponse:
    """Use the receipt up for one running task instance; the answer is its bundle."""
    async with call.refusals_recorded("redeem", request_id):
        ti_id = the_task(call.caller, body.ti_id)
    bundle = await call.backend.run(_redeem, call, request_id, ti_id, body.digest)
    call.backend.events.wake()
    return JSONResponse(bundle)


def _redeem(call: Call, request_id: str, ti_id: str, digest: str) -> dict[str, Any] | None:
    service = call.backend.service
    redeemed = service.redeem(ti_id, request_id, digest=digest, now=now())
    return bundle_of(service, redeemed, call.backend.settings.ledger_origin, now=now())


@router.post("/requests/{request_id}/outcome")
async def outcome(call: ThisCall, request_id: RequestId, body: OutcomeBody) -> JSONResponse:
    """Record what the write did."""
    async with call.refusals_recorded("outcome", request_id):
        ti_id = the_task(call.caller, body.ti_id)
    reported = await call.backend.run(
        lambda: call.backend.service.report_outcome(
            ti_id,
            request_id,
            published=body.published,
            digest=body.digest,
            detail=body.detail,
            now=now(),
        )
    )
    return _changed(call, reported)


def _changed(call: Call, request: ApprovalRequest) -> JSONResponse:
    call.backend.events.wake()
    return JSONResponse(request_view(request))
