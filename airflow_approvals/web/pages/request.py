"""Everything that the page of one request shows, gathered from the record."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

from airflow_approvals.channels.changes import Changes, changes_of, find_prior
from airflow_approvals.channels.facts import outcome_of
from airflow_approvals.channels.gated_facts import TASK, gated_facts
from airflow_approvals.channels.outbox import Outbox
from airflow_approvals.channels.pii_chart import PiiChart, chart_of
from airflow_approvals.core.errors import ReceiptInvalidError, VerificationError
from airflow_approvals.core.model import ApprovalRequest, Origin, Person, State, digest_of_action
from airflow_approvals.core.progress import Progress
from airflow_approvals.core.receipt import Receipt, verify_bundle
from airflow_approvals.core.signature import public_keys_from_json
from airflow_approvals.ports import Visibility
from airflow_approvals.service import Service, actor_of
from airflow_approvals.settings import Settings
from airflow_approvals.web.callers import policy_file_or_none
from airflow_approvals.web.ledger import bundle_of, public_keys
from airflow_approvals.web.pages.abilities import Abilities, abilities_of
from airflow_approvals.web.pages.deliveries import Told, is_moving, told_of
from airflow_approvals.web.pages.standings import Standings, standings_of
from airflow_approvals.web.pages.timeline import MAX_ENTRIES, Happening, timeline_of

_SUCCESSOR = re.compile(r"superseded by ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


@dataclass(frozen=True, kw_only=True)
class ReceiptCheck:
    """What came of verifying the receipt with its place in the ledger, just now."""

    receipt: Receipt | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Link:
    """An address from outside; only one that leads to a web page can be followed."""

    text: str
    href: str | None


@dataclass(frozen=True, kw_only=True)
class RequestPage:
    """The facts, ready to be laid out."""

    request: ApprovalRequest
    after: int  # ledger index of the last thing that was looked at
    progress: Progress | None
    abilities: Abilities
    changes: Changes | None
    pii: PiiChart | None
    pii_facts: tuple[tuple[str, str], ...]
    timeline: tuple[Happening, ...]
    timeline_is_cut: bool
    deliveries: tuple[Told, ...]
    standings: Standings
    check: ReceiptCheck | None
    links: tuple[Link, ...]
    does: tuple[tuple[str, str], ...]  # what a gated task would do
    outcome: str  # in a word or two; empty as long as there is none
    parameters: str
    task_path: str | None
    lineage: str | None
    successor: str | None

    @property
    def is_open(self) -> bool:
        return self.request.state is State.PENDING

    @property
    def is_moving(self) -> bool:
        """Whether something is about to be told somewhere."""
        return is_moving(self.deliveries)

    @property
    def is_given_up(self) -> bool:
        """Whether something could not be told, and will not be without somebody."""
        return any(line.tone == "bad" for line in self.deliveries)

    @property
    def ends_at(self) -> datetime | None:
        """Until when something can still happen."""
        if self.request.state is State.PENDING:
            return self.request.expires_at
        return self.request.receipt_expires_at if self.request.state is State.APPROVED else None


def page_of(
    service: Service,
    request_id: str,
    person: Person,
    *,
    visible_to: Visibility | None,
    outbox: Outbox | None,
    settings: Settings,
    now: datetime,
) -> RequestPage:
    """Return the page of a request that `person` may see."""
    # Before the request is read: what happens in between is told by the events that come after.
    after = service.store.ledger_size() - 1
    request = service.store.get_request(request_id)
    prior = find_prior(service.store, request, visible_to)
    policy_file = policy_file_or_none(service.policies)
    entries = service.store.entries_of_request(request.id, limit=MAX_ENTRIES)
    successor = _SUCCESSOR.search(request.decided_because)
    return RequestPage(
        request=request,
        after=after,
        progress=service.progress_of(request) if policy_file is not None else None,
        abilities=abilities_of(service, request, person, now=now),
        changes=changes_of(prior, request) if prior is not None else None,
        pii=chart_of(request.evidence.pii),
        pii_facts=_plain_facts(request.evidence.pii),
        timeline_is_cut=len(entries) == MAX_ENTRIES,
        timeline=timeline_of(entries, own_task=_names_of_task(request)),
        deliveries=told_of(outbox.deliveries_of(request.id) if outbox else (), policy_file),
        standings=standings_of(service.store, request, policy_file, visible_to=visible_to),
        check=check_receipt(service, request, origin=settings.ledger_origin, now=now),
        links=tuple(_link(address) for address in request.evidence.links),
        does=gated_facts((request.action.parameters or {}).get(TASK)),
        outcome=outcome_of(request),
        parameters=_told(request.action.parameters) if request.action.parameters else "",
        task_path=_task_path(request.origin) if request.origin else None,
        lineage=_lineage(settings.lineage_url, request.origin) if request.origin else None,
        successor=successor[1] if successor else None,
    )


def check_receipt(
    service: Service, request: ApprovalRequest, *, origin: str, now: datetime
) -> ReceiptCheck | None:
    """Verify the receipt as an auditor would, with the keys that have signed here; None if there is none."""
    try:
        bundle = bundle_of(service, request, origin, now=now)
        if bundle is None:
            return None
        receipt = verify_bundle(bundle, public_keys_from_json(public_keys(service)))
        digest = digest_of_action(request.action, request.evidence, request.standing)
        if (receipt.request_id, receipt.action_digest) != (request.id, digest):
            raise ReceiptInvalidError(
                "the receipt is genuine, and of something else than this page shows; do not rely on either"
            )
    except VerificationError as error:
        return ReceiptCheck(receipt=None, problem=str(error))
    return ReceiptCheck(receipt=receipt)


def _link(address: str) -> Link:
    try:
        is_web = urlsplit(address).scheme.lower() in ("http", "https") and address.isprintable()
    except ValueError:
        is_web = False
    return Link(text=address, href=address if is_web else None)


def _lineage(template: str, origin: Origin) -> str | None:
    """Return where the lineage of the task is shown; None where no such place is configured."""
    address = template
    for name in ("dag_id", "task_id", "run_id"):
        address = address.replace(f"{{{name}}}", quote(getattr(origin, name), safe=""))
    return _link(address).href


def _names_of_task(request: ApprovalRequest) -> set[str]:
    """Return how the ledger names the task that asked, whichever of its tries spoke."""
    if request.origin is None:
        return set()
    ids = {request.origin.ti_id, request.redeemed_by} - {None}
    return {actor_of(request.origin), *(f"worker:{ti_id}" for ti_id in ids)}


def _task_path(origin: Origin) -> str:
    parts = ("dags", origin.dag_id, "runs", origin.run_id, "tasks", origin.task_id)
    mapped = f"/mapped/{origin.map_index}" if origin.map_index >= 0 else ""
    return "".join(f"/{quote(part, safe='')}" for part in parts) + mapped


def _plain_facts(pii: dict[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Return what a PII report says beside its columns: mode, engine, digests."""
    plain = (pii or {}).items()
    return tuple((name, str(value)) for name, value in plain if isinstance(value, str | int | float | bool))


def _told(parameters: dict[str, Any]) -> str:
    return json.dumps(parameters, indent=2, ensure_ascii=False, sort_keys=True)
