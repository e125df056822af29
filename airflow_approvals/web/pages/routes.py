"""The pages that are only looked at: inbox, request, task instance, receipt, and the files they need."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from airflow_approvals.channels.facts import facts_of
from airflow_approvals.core.break_glass import is_emergency
from airflow_approvals.core.errors import RequestNotFoundError
from airflow_approvals.core.model import ApprovalRequest, Person, State, Verdict
from airflow_approvals.core.policy import PolicyFile
from airflow_approvals.ports import RequestFilter
from airflow_approvals.web.api import Call, ThisCall
from airflow_approvals.web.backend import now
from airflow_approvals.web.callers import policy_file_or_none, the_user, visibility_of
from airflow_approvals.web.ledger import bundle_of
from airflow_approvals.web.pages.csrf import token_for
from airflow_approvals.web.pages.deliveries import find_outbox, given_up
from airflow_approvals.web.pages.inbox import (
    Inbox,
    View,
    Wanted,
    check_requester,
    inbox_of,
    states_of,
)
from airflow_approvals.web.pages.render import airflow_root_of, asset, render, root_of
from airflow_approvals.web.pages.request import RequestPage, page_of
from airflow_approvals.web.pages.route import PageRoute
from airflow_approvals.web.views import RequestId

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_FOREVER = "private, max-age=31536000, immutable"

Word = Annotated[str, Query(max_length=250)]


@router.get("/")
async def show_inbox(
    request: Request,
    call: ThisCall,
    view: View = View.ANSWER,
    search: Word = "",
    state: Word = "",
    policy: Word = "",
    dag: Word = "",
    requester: Word = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Show one page of one list."""
    wanted = Wanted(
        view=view,
        search=search.strip().replace("\x00", ""),
        state=state,
        policy=policy,
        dag=dag,
        requester=check_requester(requester),
        page=page,
    )
    return render(request, "inbox.html", await call.backend.run(_inbox, call, wanted))


def _inbox(call: Call, wanted: Wanted) -> dict[str, Any]:
    service, user, at = call.backend.service, the_user(call.caller), now()
    policy_file = policy_file_or_none(service.policies)
    after = service.store.ledger_size() - 1
    visible_to = visibility_of(call.users, user, policy_file)
    outbox = find_outbox(call.channels)
    found: Inbox = inbox_of(
        service,
        user.person,
        wanted,
        policy_file=policy_file,
        visible_to=visible_to,
        now=at,
    )
    return {
        "person": user.person,
        "now": at,
        "after": after,
        "wanted": wanted,
        "inbox": found,
        "given_up": given_up(outbox, service.store, visible_to, now=at) if outbox else None,
        "views": _views(policy_file, wanted.view),
        "states": states_of(wanted.view),
        "policies": [each.name for each in policy_file.policies] if policy_file else [],
        "no_policy": policy_file is None,
        "stale_policy": policy_file is not None and service.policies.problem() is not None,
    }


def _views(policy_file: PolicyFile | None, shown: View) -> list[View]:
    """Return the lists there are; one of standing approvals only where a policy knows them."""
    knows = policy_file is not None and any(policy.standing for policy in policy_file.policies)
    return [view for view in View if view in (shown, *(View if knows else set(View) - {View.STANDING}))]


@router.get("/requests/{request_id}")
async def show_request(
    request: Request, call: ThisCall, request_id: RequestId, done: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """Show one request, and what may be done with it."""
    await call.seen(request_id)
    return await request_page(request, call, request_id, done=done)


_LEFT_OUT = frozenset({"Columns", "Bytes", "Request"})
"""Facts that are not said once more before an answer counts."""

_NOTICES = {
    "approve": "Your approval is on the record.",
    "deny": "Your denial is on the record. The task will not write anything.",
    "ask": "Your question is on the record. The requester is asked; the clock goes on.",
    "answer": "Your answer is on the record.",
    "cancel": "The request is withdrawn.",
    "revoke": "The approval is taken back. It can no longer be used.",
    "break-glass": "The glass is broken: this is approved, on you alone. Every channel is told.",
    "review": "It is on the record that you have looked at this emergency grant.",
    "standing": "Your wish is on the record. Others must approve that it stands.",
}


async def request_page(
    request: Request,
    call: Call,
    request_id: str,
    *,
    done: str = "",
    problem: str | None = None,
    entered: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    """Return the page; `problem` says in place why an answer was refused, `entered` keeps what was typed."""
    user = the_user(call.caller)
    token = token_for(request, user.person, call.backend.settings)
    page = await call.backend.run(_request, call, request_id)
    facts = {
        "person": user.person,
        "now": now(),
        "after": page.after,
        "page": page,
        "request": page.request,
        "token": token,
        "notice": _NOTICES[done] if _has_done(user.person, done, page.request) else None,
        "problem": problem,
        "entered": entered or {},
        "airflow": airflow_root_of(request),
    }
    return render(request, "request.html", facts, status=status)


def confirm_page(
    request: Request, call: Call, found: ApprovalRequest, *, attempt: str, entered: dict[str, str]
) -> Response:
    """Return the page that asks once more before an answer counts."""
    person = the_user(call.caller).person
    facts = {
        "person": person,
        "request": found,
        "facts": [row for row in facts_of(found) if row[0] not in _LEFT_OUT],
        "attempt": attempt,
        "entered": entered,
        "token": token_for(request, person, call.backend.settings),
    }
    return render(request, "confirm.html", facts)


def _has_done(person: Person, done: str, request: ApprovalRequest) -> bool:
    """Return whether the record holds what the address says was done: a link must not claim an answer."""
    match done:
        case Verdict.APPROVE | Verdict.DENY:
            return any((vote.voter, vote.verdict) == (person, done) for vote in request.votes)
        case "ask":
            return any(question.asked_by == person for question in request.questions)
        case "answer":
            return any(question.answered_by == person for question in request.questions)
        case "break-glass":
            return request.granted is not None and person in request.granted.by and is_emergency(request)
        case "review":
            return request.review is not None and request.review.by == person
        case "standing":
            return request.standing is not None and request.opened_by == person
        case "cancel" | "revoke":
            state = State.CANCELLED if done == "cancel" else State.REVOKED
            return request.state is state and f" by {person}" in request.decided_because
        case _:
            return False


def _request(call: Call, request_id: str) -> RequestPage:
    service, user = call.backend.service, the_user(call.caller)
    return page_of(
        service,
        request_id,
        user.person,
        visible_to=visibility_of(call.users, user, policy_file_or_none(service.policies)),
        outbox=find_outbox(call.channels),
        settings=call.backend.settings,
        now=now(),
    )


@router.get("/requests/{request_id}/receipt")
async def download_receipt(call: ThisCall, request_id: RequestId) -> Response:
    """Hand out the receipt with its proof, to be verified elsewhere."""
    found = await call.seen(request_id)
    origin = call.backend.settings.ledger_origin
    bundle = await call.backend.run(lambda: bundle_of(call.backend.service, found, origin, now=now()))
    if bundle is None:
        raise RequestNotFoundError("this request was never approved, so there is no receipt")
    return Response(
        json.dumps(bundle, indent=2) + "\n",
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="receipt-{found.id}.json"'},
    )


@router.get("/task-instances/{dag_id}/{run_id}/{task_id}/{map_index}")
async def show_task_instance(
    request: Request, call: ThisCall, dag_id: str, run_id: str, task_id: str, map_index: str
) -> Response:
    """Lead from Airflow's task instance to the newest request that it has asked with."""
    # Airflow leaves the placeholder as it is for a task that is not mapped.
    index = int(map_index) if map_index.isdecimal() and len(map_index) < 10 else -1
    user = the_user(call.caller)
    of_task = RequestFilter(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=index, limit=1)
    after, found = await call.backend.run(_of_task, call, of_task)
    if found is not None:
        return RedirectResponse(f"{root_of(request)}/requests/{found}", status_code=303)
    facts = {"person": user.person, "task_id": task_id, "after": after}
    return render(request, "no_request.html", facts)


def _of_task(call: Call, wanted: RequestFilter) -> tuple[int, str | None]:
    service = call.backend.service
    after = service.store.ledger_size() - 1
    visible = visibility_of(call.users, call.caller, policy_file_or_none(service.policies))
    newest = service.store.list_requests(replace(wanted, visible_to=visible)).requests
    return after, newest[0].id if newest else None


@router.get("/static/{name}")
async def static_file(name: str) -> Response:
    """Hand out a style sheet or a script of these pages."""
    found = asset(name)
    if found is None:
        raise RequestNotFoundError("there is no such file")
    body, media_type = found
    return Response(body, media_type=media_type, headers={"Cache-Control": _FOREVER})
