"""The HTTP client: one method per route, typed nouns in and out, problems raised as the errors they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow_approvals.client.calls import Caller, path_of
from airflow_approvals.client.tokens import TokenSource, reader_tokens, worker_tokens
from airflow_approvals.core.model import Action, ApprovalRequest, Evidence, State, Verdict, from_json, to_json

if TYPE_CHECKING:
    from airflow_approvals.service import Opening
    from airflow_approvals.settings import Settings

MAX_IDS = 200
"""Requests read by id in one call; more are read in several."""


@dataclass(frozen=True, kw_only=True)
class RequestDetail:
    """One request, how far its rules are met while it is open, and its receipt bundle once approved."""

    request: ApprovalRequest
    progress: dict[str, Any] | None
    receipt: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class RequestPage:
    """One page of requests, newest first, and how many there are in all."""

    requests: tuple[ApprovalRequest, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class EventPage:
    """What happened after an index; `next` is where to go on from."""

    entries: tuple[dict[str, Any], ...]  # index, kind, request_id, state
    next: int


class ApprovalsClient:
    """Calls one service; use it as a context manager, or `close` it.

    Idempotent calls (all but vote, ask, answer, cancel, revoke) are repeated with jittered back-off while the
    service is away, for at most `patience` seconds; then `ServiceUnavailableError`.
    """

    def __init__(
        self, base_url: str, token_source: TokenSource, timeout: float = 30.0, *, patience: float = 60.0
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._caller = Caller(self.base_url, token_source, timeout=timeout, patience=patience)

    def close(self) -> None:
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- workers ------------------------------------------------------------------------------------------

    def open_request(
        self, opening: Opening, *, idempotency_key: str | None = None
    ) -> tuple[ApprovalRequest, bool]:
        """Open a request, or find the one that this gate already has; the second value is whether it is new.

        A person's login needs an `idempotency_key`; a worker's does not.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        wire = self._caller.call("POST", "/requests", body=to_json(opening), headers=headers, again=True)
        return _request(wire.body), wire.status == 201

    def redeem(self, request_id: str, *, ti_id: str, digest: str) -> dict[str, Any]:
        """Use the receipt up for this task instance and return its bundle."""
        body = {"ti_id": ti_id, "digest": digest}
        return self._post(path_of(request_id, "redeem"), body, again=True)

    def report_outcome(
        self, request_id: str, *, ti_id: str, published: bool, digest: str | None = None, detail: str = ""
    ) -> ApprovalRequest:
        """Record what the write did."""
        body = {"ti_id": ti_id, "published": published, "digest": digest, "detail": detail}
        return _request(self._post(path_of(request_id, "outcome"), body, again=True))

    def is_protected(self, connection: str) -> bool:
        """Return whether an Airflow connection is for approved tasks alone."""
        return bool(self._get("/protected", connection=connection)["protected"])

    # --- everybody ----------------------------------------------------------------------------------------

    def get_request(self, request_id: str) -> RequestDetail:
        body = self._get(path_of(request_id))
        return RequestDetail(request=_request(body), progress=body["progress"], receipt=body["receipt"])

    def get_requests(self, request_ids: Iterable[str]) -> dict[str, ApprovalRequest]:
        """Return those of the requests that exist and may be seen, by id."""
        wanted = list(dict.fromkeys(request_ids))
        found: dict[str, ApprovalRequest] = {}
        for start in range(0, len(wanted), MAX_IDS):
            part = wanted[start : start + MAX_IDS]
            page = self._get("/requests", ids=",".join(part), limit=len(part))
            found.update((request.id, request) for request in map(_request, page["requests"]))
        return found

    def list_requests(
        self,
        *,
        status: Iterable[State | str] = (),
        dag_id: str | None = None,
        run_id: str | None = None,
        task_id: str | None = None,
        map_index: int | None = None,  # -1: of tasks that are not mapped
        policy: str | None = None,
        requester: str | None = None,
        standing: bool | None = None,
        granted_by: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> RequestPage:
        page = self._get(
            "/requests",
            status=[str(state) for state in status],
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=map_index,
            policy=policy,
            requester=requester,
            standing=standing,
            granted_by=granted_by,
            limit=limit,
            offset=offset,
        )
        return RequestPage(requests=tuple(map(_request, page["requests"])), total=page["total"])

    def answer(self, request_id: str, *, question_id: int, text: str) -> ApprovalRequest:
        body = {"question_id": question_id, "text": text}
        return _request(self._post(path_of(request_id, "answers"), body))

    def events(self, *, after: int = -1, wait: float = 0.0) -> EventPage:
        """Return what happened after ledger index `after`, holding the call for at most `wait` seconds."""
        page = self._get("/events", after=after, wait=wait)
        return EventPage(entries=tuple(page["entries"]), next=page["next"])

    # --- people -------------------------------------------------------------------------------------------

    def vote(
        self,
        request_id: str,
        verdict: Verdict | str,
        *,
        revision: int,
        reason: str = "",
        channel: str = "api",
    ) -> ApprovalRequest:
        """Approve or deny what was seen at `revision`; `channel` is api or cli."""
        body = {
            "verdict": str(Verdict(verdict)),
            "reason": reason,
            "revision": revision,
            "channel": channel,
        }
        return _request(self._post(path_of(request_id, "votes"), body))

    def ask(self, request_id: str, text: str) -> ApprovalRequest:
        return _request(self._post(path_of(request_id, "questions"), {"text": text}))

    def cancel(self, request_id: str, *, reason: str = "") -> ApprovalRequest:
        return _request(self._post(path_of(request_id, "cancel"), {"reason": reason}))

    def revoke(self, request_id: str, *, reason: str = "") -> ApprovalRequest:
        return _request(self._post(path_of(request_id, "revoke"), {"reason": reason}))

    def explain_policy(
        self, action: Action, *, evidence: Evidence | None = None, dag_id: str | None = None
    ) -> dict[str, Any]:
        """Return which policy the server would apply to `action`, and what it would require."""
        body = {"action": to_json(action), "evidence": to_json(evidence or Evidence()), "dag_id": dag_id}
        return self._post("/policy/explain", body, again=True)

    def identities(self) -> dict[str, Any]:
        """Return the accounts elsewhere that are linked to the login: `{"person", "links": [...]}`."""
        return self._get("/identities")

    def link_identity(self, code: str, *, confirm: bool = False) -> dict[str, Any]:
        """Return which account was told `code`; with `confirm`, link it to the login."""
        return self._post("/identities", {"code": code, "confirm": confirm})

    def unlink_identity(self, provider: str, team_id: str, user_id: str) -> dict[str, Any]:
        body = {"provider": provider, "team_id": team_id, "user_id": user_id}
        return self._post("/identities/unlink", body)

    def keys(self) -> dict[str, Any]:
        """Return the public keys that have signed, as `{"keys": [...]}`."""
        return self._get("/keys")

    def checkpoint(self) -> dict[str, Any]:
        """Return the newest signed ledger head: `{"size", "note"}`."""
        return self._get("/ledger/checkpoint")

    def inclusion_proof(self, index: int, size: int) -> dict[str, Any]:
        return self._get("/ledger/proof", index=index, size=size)

    def consistency_proof(self, old: int, new: int) -> dict[str, Any]:
        return self._get("/ledger/proof", old=old, new=new)

    def export(self) -> Iterator[bytes]:
        """Yield the ledger export in chunks as it comes; for members of `admins` and `auditors`."""
        return self._caller.stream("/ledger/export")

    def receipts(self, *, first: int, last: int) -> Iterator[bytes]:
        """Yield the receipts of the decisions at these ledger indexes, as lines of JSON, in chunks."""
        return self._caller.stream(f"/ledger/receipts?first={first}&last={last}")

    def open_standing(
        self, request_id: str, *, days: int, source: str | None = None, destination: str | None = None
    ) -> tuple[ApprovalRequest, bool]:
        """Ask that an approval shall stand; the second value is whether it was not asked before."""
        body = {"days": days, "source": source, "destination": destination}
        wire = self._caller.call("POST", path_of(request_id, "standing"), body=body, again=True)
        return _request(wire.body), wire.status == 201

    def break_glass(
        self, request_id: str, *, reason: str, revision: int, channel: str = "api"
    ) -> ApprovalRequest:
        """Approve alone, at once; for members of the policy's `break_glass` group."""
        body = {"reason": reason, "revision": revision, "channel": channel}
        return _request(self._post(path_of(request_id, "break-glass"), body))

    def review(self, request_id: str, *, remark: str = "") -> ApprovalRequest:
        """Put on record that an emergency grant was looked at afterwards."""
        return _request(self._post(path_of(request_id, "review"), {"remark": remark}))

    def health(self) -> dict[str, Any]:
        return self._get("/health")

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._caller.call("GET", path, params=params, again=True).body

    def _post(self, path: str, body: dict[str, Any], *, again: bool = False) -> dict[str, Any]:
        return self._caller.call("POST", path, body=body, again=again).body


def worker_client(ti_id: str, settings: Settings, *, patience: float = 60.0) -> ApprovalsClient:
    """Return the client of one running task instance."""
    tokens = worker_tokens(ti_id, settings.worker_secret)
    return ApprovalsClient(settings.service_url, tokens, settings.http_timeout, patience=patience)


def reader_client(settings: Settings) -> ApprovalsClient:
    """Return the client of the triggerer and of sensors in it: it can read, and nothing else."""
    return ApprovalsClient(settings.service_url, reader_tokens(settings.worker_secret), settings.http_timeout)


def _request(body: dict[str, Any]) -> ApprovalRequest:
    fields = {name: value for name, value in body.items() if name not in ("progress", "receipt")}
    return from_json(ApprovalRequest, fields)
