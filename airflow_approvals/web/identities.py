"""Links between a login and accounts elsewhere: made by whoever is logged in, with a code from over there."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from airflow_approvals.channels.slack.identity import Identities
from airflow_approvals.core.delivery import IdentityLink
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.model import Person, to_json
from airflow_approvals.core.policy import ADMINS
from airflow_approvals.core.progress import groups_of
from airflow_approvals.web.api import Call, ThisCall
from airflow_approvals.web.auth import AuthenticatedRoute
from airflow_approvals.web.backend import now
from airflow_approvals.web.callers import policy_file_or_none, the_user
from airflow_approvals.web.deliveries import ChannelsBackend
from airflow_approvals.web.schemas import Body

router = APIRouter(route_class=AuthenticatedRoute)

_Id = Annotated[str, StringConstraints(min_length=1, max_length=250)]


class CodeBody(Body):
    """A code that an account elsewhere was told; `confirm` once it is clear whose account that is."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=50)]
    confirm: bool = False


class AccountBody(Body):
    """One linked account."""

    provider: _Id
    team_id: _Id
    user_id: _Id


@router.get("/identities")
async def list_identities(call: ThisCall, request: Request) -> JSONResponse:
    """List the accounts that are linked to the caller's login."""
    person = the_user(call.caller).person
    links = await call.backend.run(lambda: _identities(request).links_of(person))
    return JSONResponse({"person": person, "links": [_view(link) for link in links]})


@router.post("/identities")
async def link_identity(call: ThisCall, request: Request, body: CodeBody) -> JSONResponse:
    """Tell which account a code is of, and with `confirm` link it to the caller's login."""
    async with call.refusals_recorded("link identity"):
        person = the_user(call.caller).person
        answer = await call.backend.run(_link, channels_of(request), person, body)
    call.backend.events.wake()
    return JSONResponse(answer)


@router.post("/identities/unlink")
async def unlink_identity(call: ThisCall, request: Request, body: AccountBody) -> JSONResponse:
    """End a link of one's own; admins end anybody's."""
    async with call.refusals_recorded("unlink identity"):
        person = the_user(call.caller).person
        await call.backend.run(_unlink, call, channels_of(request), person, body)
    call.backend.events.wake()
    return JSONResponse({"unlinked": True})


def _link(channels: ChannelsBackend, person: Person, body: CodeBody) -> dict[str, Any]:
    identities = channels.channels.identities
    told = identities.find_code(body.code, now=now())
    account = {"provider": told.provider, "team_id": told.team_id, "user_id": told.user_id}
    if not body.confirm:
        return {**account, "person": person, "linked": False}
    return {**_view(identities.link(body.code, person, now=now())), "linked": True}


def _unlink(call: Call, channels: ChannelsBackend, person: Person, body: AccountBody) -> None:
    policy_file = policy_file_or_none(call.backend.service.policies)
    is_admin = policy_file is not None and ADMINS in groups_of(policy_file, person)
    channels.channels.identities.unlink(
        body.provider,
        body.team_id,
        body.user_id,
        of=None if is_admin else person,
        actor=person,
        now=now(),
    )


def _identities(request: Request) -> Identities:
    return channels_of(request).channels.identities


def channels_of(request: Request) -> ChannelsBackend:
    """Return the channels of this process; raise `ConfigurationError` where there are none."""
    channels: ChannelsBackend | None = request.app.state.channels
    if channels is None:
        raise ConfigurationError("no channel is set up on this server, so there is nothing to link")
    return channels


def _view(link: IdentityLink) -> dict[str, Any]:
    view: dict[str, Any] = to_json(link)
    return view
