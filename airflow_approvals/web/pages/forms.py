"""The pages' forms: the same service calls as the API's, with refusals shown in place, in plain words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from airflow_approvals.core.errors import AlreadyDecidedError, ApprovalsError, InvalidRequestError
from airflow_approvals.core.model import ApprovalRequest, Channel, Person, Verdict
from airflow_approvals.service import Service
from airflow_approvals.web.api import Call, ThisCall
from airflow_approvals.web.backend import new_id, now
from airflow_approvals.web.callers import the_user
from airflow_approvals.web.pages.abilities import Abilities, abilities_of
from airflow_approvals.web.pages.csrf import FIELD, check_form
from airflow_approvals.web.pages.deliveries import check_may_send_again, find_outbox
from airflow_approvals.web.pages.render import root_of
from airflow_approvals.web.pages.route import PageRoute
from airflow_approvals.web.pages.routes import confirm_page, request_page
from airflow_approvals.web.problems import status_of
from airflow_approvals.web.schemas import check_plain
from airflow_approvals.web.views import RequestId

router = APIRouter(route_class=PageRoute, include_in_schema=False)

MAX_FIELDS = 20
_FORM = "application/x-www-form-urlencoded"

Form = dict[str, str]
Change = Callable[[Service, Person], ApprovalRequest]


async def form_of(request: Request, call: ThisCall) -> Form:
    """Return the fields of a form that one of our own pages sent; raise for any other."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise InvalidRequestError(f"a form must be sent as {_FORM}; load the page again")
    try:
        text = (await request.body()).decode()
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
        check_plain(dict(fields))
    except ValueError:
        raise InvalidRequestError("the form cannot be read; load the page again") from None
    # Browsers send line ends as CR LF.
    form = {name: value.replace("\r\n", "\n") for name, value in fields}
    check_form(request, form.get(FIELD, ""), the_user(call.caller).person, call.backend.settings)
    return form


ThisForm = Annotated[Form, Depends(form_of)]


@router.post("/requests/{request_id}/vote")
async def vote(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Approve or deny what this page has shown."""
    word = form.get("verdict", "")
    if word not in set(Verdict):
        raise InvalidRequestError("verdict: expected approve or deny; load the page again")

    def change(service: Service, person: Person) -> ApprovalRequest:
        return service.cast_vote(
            person,
            request_id,
            Verdict(word),
            reason=form.get("reason", ""),
            revision=_number(form, "revision"),
            channel=Channel.PAGE,
            now=now(),
        )

    if word == Verdict.APPROVE and (step := await _asked_twice(request, call, request_id, word, form)):
        return step
    return await _answered(request, call, request_id, word, change, form)


@router.post("/requests/{request_id}/ask")
async def ask(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Ask for more context."""

    def change(service: Service, person: Person) -> ApprovalRequest:
        return service.ask(person, request_id, form.get("question", ""), channel=Channel.PAGE, now=now())

    return await _answered(request, call, request_id, "ask", change, form)


@router.post("/requests/{request_id}/answer")
async def answer(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Answer a question, as the requester."""

    def change(service: Service, person: Person) -> ApprovalRequest:
        number = _number(form, "question_id")
        return service.answer(person, request_id, number, form.get("answer", ""), now=now())

    return await _answered(request, call, request_id, "answer", change, form)


@router.post("/requests/{request_id}/cancel")
async def cancel(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Withdraw a pending request."""

    def change(service: Service, person: Person) -> ApprovalRequest:
        return service.cancel(person, request_id, reason=form.get("because", ""), now=now())

    return await _answered(request, call, request_id, "cancel", change, form)


@router.post("/requests/{request_id}/revoke")
async def revoke(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Take an approval back before it is used."""

    def change(service: Service, person: Person) -> ApprovalRequest:
        return service.revoke(person, request_id, reason=form.get("because", ""), now=now())

    return await _answered(request, call, request_id, "revoke", change, form)


@router.post("/requests/{request_id}/break-glass")
async def break_glass(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Grant alone, in an emergency."""

    def change(service: Service, person: Person) -> ApprovalRequest:
        return service.break_glass(
            person,
            request_id,
            reason=form.get("emergency", ""),
            revision=_number(form, "revision"),
            channel=Channel.PAGE,
            now=now(),
        )

    if step := await _asked_twice(request, call, request_id, "break-glass", form):
        return step
    return await _answered(request, call, request_id, "break-glass", change, form)


@router.post("/requests/{request_id}/review")
async def review(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Put on record that an emergency grant was looked at afterwards."""

    def change(service: Service, person: Person) -> ApprovalRequest:
        return service.review_glass(person, request_id, remark=form.get("remark", ""), now=now())

    return await _answered(request, call, request_id, "review", change, form)


@router.post("/requests/{request_id}/standing")
async def stand(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Ask that this approval shall answer later runs too; leads to the request that asks for it."""

    def change(service: Service, person: Person) -> ApprovalRequest:
        opened = service.open_standing(
            person,
            request_id,
            days=_number(form, "days"),
            source=form.get("source", "").strip() or None,
            destination=form.get("destination", "").strip() or None,
            new_id=new_id(),
            now=now(),
        )
        return opened.request

    return await _answered(request, call, request_id, "standing", change, form)


@router.post("/requests/{request_id}/send-again")
async def send_again(request: Request, call: ThisCall, request_id: RequestId, form: ThisForm) -> Response:
    """Send what was given up once more: somebody has mended the channel."""

    def change(service: Service, person: Person) -> ApprovalRequest:
        found = service.store.get_request(request_id)
        check_may_send_again(found, person, service.policies.current())
        outbox = find_outbox(call.channels)
        if outbox is not None:
            outbox.revive(request_id, now=now())
        return found

    return await _answered(request, call, request_id, "send-again", change, form)


async def _asked_twice(
    request: Request, call: Call, request_id: str, attempt: str, form: Form
) -> Response | None:
    """Return the page that asks once more, or the one to go back to; None where the answer counts as it is.

    Who may not do it at all is refused at once, by the service.
    """
    if form.get("confirm") == "yes":
        return None
    async with call.refusals_recorded(attempt, request_id):
        found = await call.seen(request_id)
    if form.get("confirm") == "no":
        return await request_page(request, call, request_id, entered=form)
    person = the_user(call.caller).person
    may = await call.backend.run(lambda: abilities_of(call.backend.service, found, person, now=now()))
    if not (may.break_glass if attempt == "break-glass" else may.approve and may.asks_twice):
        return None
    if _number(form, "revision") != found.revision or not _is_complete(form, attempt, may):
        return None
    return confirm_page(request, call, found, attempt=attempt, entered=form)


def _is_complete(form: Form, attempt: str, may: Abilities) -> bool:
    """Return whether the reason is there that the service will ask for."""
    if attempt == "break-glass":
        return bool(form.get("emergency", "").strip())
    return may.reason_needed != "always" or bool(form.get("reason", "").strip())


async def _answered(
    request: Request, call: Call, request_id: str, attempt: str, change: Change, form: Form
) -> Response:
    """Make the change and lead back to the page; a refusal is shown on it, with what was typed."""
    async with call.refusals_recorded(attempt, request_id):
        await call.seen(request_id)
    person = the_user(call.caller).person
    try:
        changed = await call.backend.run(lambda: change(call.backend.service, person))
    except ApprovalsError as refusal:
        call.backend.events.wake()
        problem = str(refusal).replace(f"request {request_id}", "this request")
        if isinstance(refusal, AlreadyDecidedError):
            problem += "; nothing was recorded for you"
        return await request_page(
            request, call, request_id, problem=problem, entered=form, status=status_of(type(refusal))
        )
    call.backend.events.wake()
    return RedirectResponse(f"{root_of(request)}/requests/{changed.id}?done={attempt}", status_code=303)


def _number(form: Form, name: str) -> int:
    text = form.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequestError(f"{name}: expected a number; load the page again")
    return int(text)
