"""What is different from the last time that this was approved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_approvals.channels.gated_facts import TASK, gated_changes, in_words
from airflow_approvals.channels.pii_chart import entity_counts
from airflow_approvals.channels.text import counted, headed
from airflow_approvals.core.model import ApprovalRequest, Column, State
from airflow_approvals.ports import RequestFilter, Store, Visibility

APPROVED_STATES = (State.COMPLETED, State.REDEEMED, State.APPROVED, State.FAILED)
_LOOKED_AT = 50


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference: what, how it was, how it is."""

    what: str
    was: str
    now: str


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Everything that differs from `prior`; nothing, if both agree."""

    prior: ApprovalRequest
    differences: tuple[Change, ...]


def find_prior(
    store: Store, request: ApprovalRequest, visible_to: Visibility | None
) -> ApprovalRequest | None:
    """Return the newest earlier request that was approved for the same task, or the same destination.

    The same destination wins, so that a task which serves several is held against its own last one.
    """
    if request.standing is not None:
        # What it is asked for has been approved once, whatever came of that since.
        approved = RequestFilter(ids=(request.standing.approved_id,), visible_to=visible_to)
        return next(iter(store.list_requests(approved).requests), None)
    wanted = RequestFilter(
        states=APPROVED_STATES, opened_before=request.opened_at, visible_to=visible_to, limit=_LOOKED_AT
    )
    if request.origin is not None:
        wanted = replace(wanted, dag_id=request.origin.dag_id, task_id=request.origin.task_id)
    else:
        wanted = replace(wanted, policy=request.policy)
    earlier = [
        each for each in store.list_requests(wanted).requests if each.action.kind == request.action.kind
    ]
    same = [each for each in earlier if each.action.destination == request.action.destination]
    if same:
        return same[0]
    return earlier[0] if earlier and request.origin is not None else None


def changes_of(prior: ApprovalRequest, request: ApprovalRequest) -> Changes:
    """Return what differs between two requests, the most telling first."""
    return Changes(prior=prior, differences=tuple(_differences(prior, request)))


def _differences(prior: ApprovalRequest, request: ApprovalRequest) -> Iterator[Change]:
    yield from _told("Destination", prior.action.destination, request.action.destination)
    yield from _told("Source", prior.action.source, request.action.source)
    yield from _parameters(prior.action.parameters or {}, request.action.parameters or {})
    was, now = _rows(prior), _rows(request)
    if was is not None and now is not None and was != now:
        yield Change(what="Rows", was=f"{was:,}", now=f"{now:,} ({_delta(was, now)})")
    yield from _columns(prior, request)
    yield from _pii(prior, request)
    yield from _told("Policy", prior.policy, request.policy)
    if prior.policy == request.policy and prior.policy_digest != request.policy_digest:
        yield Change(what="Policy rule", was=prior.policy_digest[:12], now=request.policy_digest[:12])
    yield from _told("Asked by", ", ".join(prior.requesters), ", ".join(request.requesters))


def _told(what: str, was: str | None, now: str | None) -> Iterator[Change]:
    if was != now:
        yield Change(what=what, was=was or "none", now=now or "none")


def _parameters(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted(was.keys() | now.keys()):
        before, after = was.get(name), now.get(name)
        if before == after:
            continue
        does = tuple(gated_changes(before, after)) if name == TASK else ()
        for label, then, found in does or ((f"Parameter {name}", _or_none(before), _or_none(after)),):
            yield Change(what=headed(label), was=then, now=found)


def _or_none(value: object) -> str:
    return "none" if value is None else in_words(value)


def _rows(request: ApprovalRequest) -> int | None:
    datasets = request.evidence.datasets
    return sum(dataset.rows for dataset in datasets) if datasets else None


def _delta(was: int, now: int) -> str:
    share = f", {(now - was) / was:+.1%}" if was else ""
    return f"{now - was:+,}{share}"


def _columns(prior: ApprovalRequest, request: ApprovalRequest) -> Iterator[Change]:
    was, now = _types(prior), _types(request)
    for name in sorted(now.keys() - was.keys()) if was and now else ():
        yield Change(what="Column added", was="none", now=f"{name} ({now[name]})")
    for name in sorted(was.keys() - now.keys()) if was and now else ():
        yield Change(what="Column removed", was=f"{name} ({was[name]})", now="none")
    for name in sorted(was.keys() & now.keys()):
        if was[name] != now[name]:
            yield Change(what=f"Type of column {name}", was=was[name], now=now[name])


def _types(request: ApprovalRequest) -> dict[str, str]:
    def told(column: Column) -> str:
        return column.type if column.nullable else f"{column.type} not null"

    return {column.name: told(column) for each in request.evidence.datasets for column in each.columns}


def _pii(prior: ApprovalRequest, request: ApprovalRequest) -> Iterator[Change]:
    was, now = entity_counts(prior.evidence.pii), entity_counts(request.evidence.pii)
    if was is None or now is None:
        if was is not now:
            yield Change(
                what="PII scan", was=_scanned(was), now=_scanned(now)
            )  # one of the two was not scanned
        return
    rules, rules_now = _rules(prior), _rules(request)
    if rules and rules_now and rules != rules_now:
        yield Change(what="Masking rules", was=rules[:12], now=rules_now[:12])
    for entity in sorted(was.keys() | now.keys()):
        before, after = was.get(entity, 0), now.get(entity, 0)
        if before != after:
            yield Change(what=f"PII {entity}", was=counted(before, "cell"), now=counted(after, "cell"))


def _rules(request: ApprovalRequest) -> str:
    return str((request.evidence.pii or {}).get("rules_digest") or "")


def _scanned(counts: dict[str, int] | None) -> str:
    return "not scanned" if counts is None else f"{counted(sum(counts.values()), 'cell')} with findings"
