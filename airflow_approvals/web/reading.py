"""The routes that only read: requests, events, proofs, keys, health, what the policy would say."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse

from airflow_approvals import __version__
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import ApprovalRequest, State, to_json
from airflow_approvals.core.policy_explain import explain
from airflow_approvals.ports import RequestFilter
from airflow_approvals.service import Service
from airflow_approvals.web.api import Call, ThisCall
from airflow_approvals.web.auth import AuthenticatedRoute
from airflow_approvals.web.backend import now
from airflow_approvals.web.callers import (
    check_auditor,
    policy_file_or_none,
    the_task,
    the_user,
    visibility_of,
)
from airflow_approvals.web.events import MAX_ENTRIES, event_of
from airflow_approvals.web.export import export_chunks, receipt_lines
from airflow_approvals.web.ledger import bundle_of, ensure_checkpoint, public_keys
from airflow_approvals.web.schemas import ExplainBody
from airflow_approvals.web.views import RequestId, brief_view, progress_view, request_view

router = APIRouter(route_class=AuthenticatedRoute)

MAX_PAGE = 500
MAX_WAIT = 55.0
"""Seconds that a call may be held: less than the minute after which proxies give up."""

Word = Annotated[str | None, Query(max_length=250)]
Index = Annotated[int | None, Query(ge=-1, le=(1 << 31) - 1)]


@router.get("/requests")
async def list_requests(
    call: ThisCall,
    status: Annotated[list[State], Query()] = [],  # noqa: B006  # FastAPI copies it
    dag_id: Word = None,
    run_id: Word = None,
    task_id: Word = None,
    map_index: Index = None,
    policy: Word = None,
    requester: Word = None,
    standing: bool | None = None,
    granted_by: Word = None,
    ids: Annotated[list[str], Query(max_length=MAX_PAGE)] = [],  # noqa: B006
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000)] = 0,
    brief: bool = False,
) -> JSONResponse:
    """List requests, newest first; `ids` may be repeated or separated by commas; `brief`: id, state.

    `map_index` is one index of a mapped task; -1: of tasks that are not mapped.
    """
    wanted = RequestFilter(
        states=tuple(status),
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        policy=policy,
        requester=person_named(requester) if requester else None,
        is_standing=standing,
        granted_by=granted_by,
        ids=_split(ids),
        limit=limit,
        offset=offset,
    )
    return JSONResponse(await call.backend.run(_list, call, wanted, brief))


@router.get("/requests/{request_id}", responses={200: {"model": ApprovalRequest}})
async def get_request(call: ThisCall, request_id: RequestId) -> JSONResponse:
    """Return one request with votes, questions, progress, and its receipt bundle once it was approved."""
    request = await call.seen(request_id)
    return JSONResponse(await call.backend.run(_detail, call, request))


@router.get("/events")
async def events(
    request: Request,
    call: ThisCall,
    after: Annotated[int, Query(ge=-1, le=1 << 62)] = -1,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0.0,
) -> JSONResponse:
    """Return what happened after ledger index `after`; hold the call until something has, or `wait` is over.

    A person is told of requests that they may see, and of what concerns none; a worker of all of them.

    `next` smaller than `after` says that the ledger is shorter than the caller knew it: it was restored.
    """
    hub, deadline = call.backend.events, time.monotonic() + wait
    hung_up = asyncio.create_task(_hung_up(request))
    try:
        while True:
            ticket = hub.ticket(after)
            try:
                found = await call.backend.run(_entries, call, after)
                left = deadline - time.monotonic()
                if found["entries"] or found["next"] < after or left <= 0 or hung_up.done():
                    return JSONResponse(found)
                if found["next"] == after:  # otherwise there was something, and none of the caller's business
                    await hub.wait(ticket, left, hung_up=hung_up)
                after = found["next"]
            finally:
                hub.give_back(ticket)
    finally:
        hung_up.cancel()


@router.get("/ledger/checkpoint")
async def checkpoint(call: ThisCall) -> JSONResponse:
    """Return the signed head of the ledger as it is now."""
    the_user(call.caller)
    origin = call.backend.settings.ledger_origin
    size, note = await call.backend.run(lambda: ensure_checkpoint(call.backend.service, origin, now=now()))
    return JSONResponse({"size": size, "note": note})


@router.get("/ledger/proof")
async def proof(
    call: ThisCall,
    index: Annotated[int | None, Query(ge=0, le=1 << 62)] = None,
    size: Annotated[int | None, Query(ge=1, le=1 << 62)] = None,
    old: Annotated[int | None, Query(ge=0, le=1 << 62)] = None,
    new: Annotated[int | None, Query(ge=0, le=1 << 62)] = None,
) -> JSONResponse:
    """Return an inclusion proof (`index`, `size`) or a consistency proof (`old`, `new`), hashes in hex."""
    the_user(call.caller)
    return JSONResponse(await call.backend.run(_proof, call, index, size, old, new))


@router.get("/ledger/export")
async def export(call: ThisCall) -> StreamingResponse:
    """Stream the whole ledger, to be verified offline; for members of `admins` and `auditors`."""
    async with call.refusals_recorded("export"):
        user = the_user(call.caller)
        await call.backend.run(lambda: check_auditor(user, call.backend.service.policies.current()))
    head = await call.backend.run(
        lambda: ensure_checkpoint(call.backend.service, call.backend.settings.ledger_origin, now=now())
    )
    return StreamingResponse(export_chunks(call.backend.service, head[1]), media_type="application/jsonl")


@router.get("/ledger/receipts")
async def receipts(
    call: ThisCall,
    first: Annotated[int, Query(ge=0, le=1 << 62)] = 0,
    last: Annotated[int, Query(ge=0, le=1 << 62)] = 1 << 62,
) -> StreamingResponse:
    """Stream the receipts of the decisions at these ledger indexes; for `admins` and `auditors`."""
    async with call.refusals_recorded("export"):
        user = the_user(call.caller)
        await call.backend.run(lambda: check_auditor(user, call.backend.service.policies.current()))
    lines = receipt_lines(call.backend.service, first=first, last=last)
    return StreamingResponse(lines, media_type="application/jsonl")


@router.get("/keys")
async def keys(call: ThisCall) -> JSONResponse:
    """Return the public keys that have signed here, the newest first; workers verify receipts with them."""
    return JSONResponse({"keys": await call.backend.run(lambda: public_keys(call.backend.service))})


@router.get("/protected")
async def protected(
    call: ThisCall, connection: Annotated[str, Query(min_length=1, max_length=250)]
) -> JSONResponse:
    """Tell a task whether a connection is for approved tasks alone; to try it without would go on record."""
    the_task(call.caller, None)
    found = await call.backend.run(lambda: call.backend.service.find_protection("connection", connection))
    return JSONResponse({"protected": found is not None})


@router.get("/health")
async def health(call: ThisCall) -> JSONResponse:
    """Return whether everything that a decision needs is there."""
    return JSONResponse(await call.backend.run(_health, call))


@router.post("/policy/explain")
async def explain_policy(call: ThisCall, body: ExplainBody) -> JSONResponse:
    """Return in plain words what the policy in force says about an action of the caller's."""
    person = the_user(call.caller).person
    explanation = await call.backend.run(
        lambda: explain(
            call.backend.service.policies.current(),
            body.action,
            body.evidence,
            (person,),
            dag_id=body.dag_id,
        )
    )
    return JSONResponse({**to_json(explanation), "sentences": list(explanation.sentences)})


def _split(ids: list[str]) -> tuple[str, ...]:
    found = tuple(one for part in ids for one in part.split(",") if one)
    if len(found) > MAX_PAGE:
        raise InvalidRequestError(
            f"ids: at most {MAX_PAGE} at once, found {len(found)}; ask in several calls"
        )
    return found


def _list(call: Call, wanted: RequestFilter, brief: bool) -> dict[str, Any]:
    service = call.backend.service
    visible = visibility_of(call.users, call.caller, policy_file_or_none(service.policies))
    page = service.store.list_requests(replace(wanted, visible_to=visible))
    if brief:
        told = [brief_view(request) for request in page.requests]
    else:
        told = [{**request_view(each), "progress": _progress(service, each)} for each in page.requests]
    return {"requests": told, "total": page.total}


def _progress(service: Service, request: ApprovalRequest) -> dict[str, Any] | None:
    if policy_file_or_none(service.policies) is None:
        return None
    return progress_view(service.progress_of(request))


def _detail(call: Call, request: ApprovalRequest) -> dict[str, Any]:
    service = call.backend.service
    return {
        **request_view(request),
        "progress": _progress(service, request),
        "receipt": bundle_of(service, request, call.backend.settings.ledger_origin, now=now()),
    }


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _entries(call: Call, after: int) -> dict[str, Any]:
    store = call.backend.service.store
    entries = store.entries_after(after, limit=MAX_ENTRIES)
    last = entries[-1].index if entries else min(after, store.ledger_size() - 1)
    return {"entries": _visible(call, [event_of(entry) for entry in entries]), "next": last}


def _visible(call: Call, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = {each["request_id"] for each in told} - {None}
    if not ids:
        return told
    service = call.backend.service
    viewer = visibility_of(call.users, call.caller, policy_file_or_none(service.policies))
    if viewer is None:
        return told
    seen = service.store.visible_among(ids, viewer)
    return [each for each in told if each["request_id"] is None or each["request_id"] in seen]


def _proof(
    call: Call, index: int | None, size: int | None, old: int | None, new: int | None
) -> dict[str, Any]:
    store = call.backend.service.store
    if index is not None and size is not None and old is None and new is None:
        hashes = store.inclusion_proof(index, size)
        return {"index": index, "size": size, "hashes": [step.hex() for step in hashes]}
    if old is not None and new is not None and index is None and size is None:
        hashes = store.consistency_proof(old, new)
        return {"old": old, "new": new, "hashes": [step.hex() for step in hashes]}
    raise InvalidRequestError("ask for index and size (inclusion), or for old and new (consistency)")


def _health(call: Call) -> dict[str, Any]:
    service = call.backend.service
    policy_file = policy_file_or_none(service.policies)
    problem = service.policies.problem()
    signed = service.store.last_checkpoint()
    return {
        "status": "ok" if policy_file is not None and problem is None else "degraded",
        "version": __version__,
        "policy": {"digest": policy_file.digest if policy_file else None, "problem": problem},
        "ledger": {"size": service.store.ledger_size(), "signed": signed[0] if signed else 0},
        "keyid": service.signer.keyid,
    }
