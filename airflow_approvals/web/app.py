"""The FastAPI app that Airflow's API server mounts under `/approvals`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from airflow_approvals import __version__
from airflow_approvals.channels.joined import Channels
from airflow_approvals.channels.slack.groups import keep_fresh
from airflow_approvals.service import Service
from airflow_approvals.settings import Settings
from airflow_approvals.web import api, identities, reading, slack
from airflow_approvals.web.auth import AuthenticatedRoute
from airflow_approvals.web.backend import Backend
from airflow_approvals.web.background import Background
from airflow_approvals.web.callers import Users
from airflow_approvals.web.deliveries import ChannelsBackend, DeliveryLoop
from airflow_approvals.web.limits import BodyLimit
from airflow_approvals.web.lineage import LineageBackend, LineageLoop, LineageParts
from airflow_approvals.web.lineage import router as lineage_router
from airflow_approvals.web.pages import forms, identity, routes
from airflow_approvals.web.problems import add_problem_handlers
from airflow_approvals.web.witnesses import Witnesses

API = "/api/v1"


def create_app(
    build: Callable[[], Service],
    settings: Settings,
    users: Users,
    build_channels: Callable[[Service], Channels] | None = None,
    lineage: LineageParts | None = None,
) -> FastAPI:
    """Return the app; `build` is called once, when the service is first needed, and the channels after it.

    The loops of `Background`, `DeliveryLoop` and `LineageLoop` live in the app's lifespan, which Airflow 3.1
    and 3.3 enter for every mounted FastAPI app, once per server process.
    """
    # FastAPI's own routes would answer anybody, and its docs page runs a script from elsewhere, with the
    # cookie of whoever may vote: the description is served to those who are logged in, a page for it is not.
    app = FastAPI(
        title="Airflow Approvals",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.router.route_class = AuthenticatedRoute
    app.state.backend = Backend(build, settings)
    app.state.users = users
    app.state.channels = ChannelsBackend(app.state.backend, build_channels) if build_channels else None
    app.state.lineage = LineageBackend(app.state.backend, lineage) if lineage else None
    add_problem_handlers(app)
    app.add_middleware(BodyLimit)
    app.include_router(api.router, prefix=API)
    app.include_router(reading.router, prefix=API)
    app.include_router(identities.router, prefix=API)
    app.include_router(slack.router, prefix=API)
    app.include_router(lineage_router, prefix=API)
    app.include_router(routes.router)
    app.include_router(forms.router)
    app.include_router(identity.router)
    _add_description(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    backend: Backend = app.state.backend
    channels: ChannelsBackend | None = app.state.channels
    background = Background(backend, Witnesses(backend, channels, app.state.lineage))
    app.state.background = background
    background.start()
    deliveries = DeliveryLoop(backend, channels) if channels is not None else None
    if deliveries is not None:
        deliveries.start()
    fresh = asyncio.create_task(keep_fresh(lambda: channels.channels.groups if channels else None))
    lineage = LineageLoop(backend, app.state.lineage) if app.state.lineage is not None else None
    if lineage is not None:
        lineage.start()
    try:
        yield
    finally:
        fresh.cancel()
        await asyncio.gather(fresh, return_exceptions=True)
        if lineage is not None:
            await lineage.stop()
        if deliveries is not None:
            await deliveries.stop()
        await background.stop()
        backend.events.close()


def _add_description(app: FastAPI) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    async def _openapi(request: Request) -> JSONResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        return JSONResponse({**app.openapi(), "servers": [{"url": root or "/"}]})
