"""One shared wait for all pending gates of a process: one long-poll of `/events` per server and event loop.

A gate registers, its request is read once (together with others that came at the same moment), and then its
entry is awaited. Nothing falls between: whoever registers is already listening when the read is sent, so a
decision is in the answer of the read, or among the events that come after it. What cannot be reached is tried
again, and never taken for a decision; after every gap all waiting requests are read again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_approvals.client.calls import API, pauses, read_answer, unreachable
from airflow_approvals.client.tokens import TokenSource, reader_tokens
from airflow_approvals.core.errors import ApprovalsError, RequestNotFoundError
from airflow_approvals.core.model import State

if TYPE_CHECKING:
    import httpx

WAIT = 25.0
"""Seconds that the server may hold one call."""

COALESCE = 0.05
"""Seconds in which requests to read are gathered into one call."""

BATCH = 200
REREAD = 600.0
"""Seconds after which all waiting requests are read again, in case the server forgot what it told."""

_TIMEOUT = 20.0  # seconds, beyond what the server holds a call on purpose
_BREATH = 0.02  # seconds between an answer and the next call: a burst of events is one answer, not many
_FAR = 1 << 62

log = logging.getLogger(__name__)

_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Watch]] = WeakKeyDictionary()


async def wait_for_decision(
    base_url: str, request_id: str, *, token_source: TokenSource | None = None
) -> dict[str, Any]:
    """Return `{"request_id", "state"}` once the request is no longer pending.

    All callers in one event loop share one watch of `base_url`, with the credential of the first; without one
    it is the triggerer's. Raises `RequestNotFoundError` when there is no such request.
    """
    base_url = base_url.rstrip("/")
    watches = _watches.setdefault(asyncio.get_running_loop(), {})
    watch = watches.get(base_url)
    if watch is None:
        if token_source is None:
            from airflow_approvals.settings import read_settings

            token_source = reader_tokens(read_settings().worker_secret)
        watch = watches[base_url] = Watch(base_url, token_source)
    try:
        return await watch.wait(request_id)
    finally:
        if watch.is_idle:
            # Taken out first: whoever comes while it closes gets a new one.
            if watches.get(base_url) is watch:
                del watches[base_url]
            await watch.stop()


class Watch:
    """Follows the events of one server for everybody who waits in this event loop."""

    def __init__(self, base_url: str, token_source: TokenSource) -> None:
        self._base_url = base_url
        self._token_source = token_source
        self._waiting: dict[str, list[asyncio.Future[str]]] = {}
        self._unread: set[str] = set()
        self._has_unread = asyncio.Event()
        self._follows = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    async def wait(self, request_id: str) -> dict[str, Any]:
        """Return the request's id and state once it is decided."""
        decided = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request_id, []).append(decided)
        self._read_soon([request_id])
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"approvals watch of {self._base_url}")
            self._task.add_done_callback(self._ended)
        try:
            return {"request_id": request_id, "state": await decided}
        finally:
            self._forget(request_id, decided)

    async def stop(self) -> None:
        """End the calls and close the connections; nobody waits any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _forget(self, request_id: str, decided: asyncio.Future[str]) -> None:
        others = self._waiting.get(request_id)
        if others is not None and decided in others:
            others.remove(decided)
            if not others:
                del self._waiting[request_id]
                self._unread.discard(request_id)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        # A fault of our own must fail the gates: a wait that nobody serves would look like patience.
        fault = task.exception() or RuntimeError("the shared watch ended by itself")
        for waiting in self._waiting.values():
            for decided in waiting:
                if not decided.done():
                    decided.set_exception(fault)

    # --- calls --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        import httpx

        self._follows.clear()
        async with httpx.AsyncClient(base_url=self._base_url, timeout=_TIMEOUT) as http:
            reading = asyncio.create_task(self._read(http))
            following = asyncio.create_task(self._follow(http))
            try:
                done, _ = await asyncio.wait({reading, following}, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    ended.result()
            finally:
                for task in (reading, following):
                    task.cancel()
                await asyncio.gather(reading, following, return_exceptions=True)

    async def _follow(self, http: httpx.AsyncClient) -> None:
        """Keep one call of `/events` open, for ever."""
        cursor: int | None = None
        read_all_at = time.monotonic() + REREAD
        tries = pauses()
        while True:
            try:
                page = await self._events(http, cursor)
            except ApprovalsError as trouble:
                await self._pause("events", trouble, next(tries))
                # Whatever happened on the other side meanwhile may not be told again.
                read_all_at = 0.0
                continue
            tries = pauses()
            went_back = cursor is not None and page["next"] < cursor
            cursor = page["next"]
            self._follows.set()
            self._tell(page["entries"])
            if went_back or time.monotonic() >= read_all_at:
                self._read_soon(self._waiting)
                read_all_at = time.monotonic() + REREAD
            await asyncio.sleep(_BREATH)

    async def _events(self, http: httpx.AsyncClient, cursor: int | None) -> dict[str, Any]:
        if cursor is None:
            # Where the ledger ends now: what was before is found by reading the requests.
            return await self._get(http, "/events", {"after": _FAR, "wait": 0})
        return await self._get(http, "/events", {"after": cursor, "wait": WAIT}, timeout=WAIT + _TIMEOUT)

    async def _read(self, http: httpx.AsyncClient) -> None:
        """Read the requests that nobody has looked at yet, many at once."""
        # Read before the end of the ledger is known, a decision between the two would be in neither answer.
        await self._follows.wait()
        tries = pauses()
        while True:
            await self._has_unread.wait()
            await asyncio.sleep(COALESCE)
            batch = [request_id for request_id, _ in zip(self._unread, range(BATCH), strict=False)]
            if not batch:
                self._has_unread.clear()
                continue
            try:
                page = await self._get(
                    http, "/requests", {"ids": ",".join(batch), "limit": len(batch), "brief": True}
                )
            except ApprovalsError as trouble:
                await self._pause("requests", trouble, next(tries))
                continue
            tries = pauses()
            self._unread.difference_update(batch)
            states = {found["id"]: found["state"] for found in page["requests"]}
            for request_id in batch:
                if request_id in states:
                    self._settle(request_id, states[request_id])
                else:
                    self._miss(request_id)

    async def _get(
        self, http: httpx.AsyncClient, path: str, params: dict[str, Any], *, timeout: float = _TIMEOUT
    ) -> dict[str, Any]:
        import httpx

        headers = {"Authorization": f"Bearer {self._token_source()}"}
        try:
            answer = await http.get(API + path, params=params, headers=headers, timeout=timeout)
        except httpx.TransportError as error:
            raise unreachable(self._base_url, error) from error
        return read_answer(answer).body

    async def _pause(self, what: str, trouble: ApprovalsError, seconds: float) -> None:
        log.warning(
            "%d gates wait on; reading %s failed: %s; again in %.1f s",
            len(self._waiting),
            what,
            trouble,
            seconds,
        )
        await asyncio.sleep(seconds)

    # --- answers ------------------------------------------------------------------------------------------

    def _read_soon(self, request_ids: Iterable[str]) -> None:
        self._unread.update(request_ids)
        self._has_unread.set()

    def _tell(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if entry["request_id"] in self._waiting and entry["state"] is not None:
                self._settle(entry["request_id"], entry["state"])

    def _settle(self, request_id: str, state: str) -> None:
        if state == State.PENDING:
            return
        for decided in self._waiting.get(request_id, ()):
            if not decided.done():
                decided.set_result(state)

    def _miss(self, request_id: str) -> None:
        for decided in self._waiting.get(request_id, ()):
            if not decided.done():
                decided.set_exception(
                    RequestNotFoundError("the request that was waited for does not exist; run the task again")
                )
