"""Where a login says which accounts elsewhere are its own: enter the code, look whose it is, confirm."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from airflow_approvals.core.delivery import LinkCode
from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.web.api import Call, ThisCall
from airflow_approvals.web.backend import now
from airflow_approvals.web.callers import the_user
from airflow_approvals.web.identities import channels_of
from airflow_approvals.web.pages.csrf import token_for
from airflow_approvals.web.pages.forms import Form, ThisForm
from airflow_approvals.web.pages.render import render, root_of
from airflow_approvals.web.pages.route import PageRoute
from airflow_approvals.web.problems import status_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/identity")
async def identity(request: Request, call: ThisCall, done: str = "") -> Response:
    """Show the caller's accounts and a place for a code."""
    return await _page(request, call, done=done)


@router.post("/identity")
async def enter_code(request: Request, call: ThisCall, form: ThisForm) -> Response:
    """Show whose code it is; with `confirm`, link that account."""
    person = the_user(call.caller).person
    code = form.get("code", "")[:50]
    identities = await call.backend.run(lambda: channels_of(request).channels.identities)
    try:
        async with call.refusals_recorded("link identity"):
            if form.get("confirm") != "yes":
                told = await call.backend.run(lambda: identities.find_code(code, now=now()))
                return await _page(request, call, told=told, code=code)
            await call.backend.run(lambda: identities.link(code, person, now=now()))
    except ApprovalsError as refusal:
        return await _page(request, call, problem=str(refusal), status=status_of(type(refusal)))
    call.backend.events.wake()
    return RedirectResponse(f"{root_of(request)}/identity?done=linked", status_code=303)


@router.post("/identity/unlink")
async def unlink(request: Request, call: ThisCall, form: ThisForm) -> Response:
    """End one of the caller's own links."""
    try:
        async with call.refusals_recorded("unlink identity"):
            await call.backend.run(_unlink, request, call, form)
    except ApprovalsError as refusal:
        return await _page(request, call, problem=str(refusal), status=status_of(type(refusal)))
    call.backend.events.wake()
    return RedirectResponse(f"{root_of(request)}/identity?done=unlinked", status_code=303)


def _unlink(request: Request, call: Call, form: Form) -> None:
    person = the_user(call.caller).person
    channels_of(request).channels.identities.unlink(
        form.get("provider", ""),
        form.get("team_id", ""),
        form.get("user_id", ""),
        of=person,
        actor=person,
        now=now(),
    )


async def _page(
    request: Request,
    call: Call,
    *,
    told: LinkCode | None = None,
    code: str = "",
    problem: str = "",
    done: str = "",
    status: int = 200,
) -> Response:
    person = the_user(call.caller).person
    facts: dict[str, Any] = {
        "person": person,
        "links": await call.backend.run(lambda: channels_of(request).channels.identities.links_of(person)),
        "told": told,
        "code": code,
        "problem": problem,
        "done": done if done in ("linked", "unlinked") else "",
        "token": token_for(request, person, call.backend.settings),
    }
    return render(request, "identity.html", facts, status=status)
