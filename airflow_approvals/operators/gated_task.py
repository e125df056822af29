"""What a gated task does at run time: ask, wait, redeem, let the operator act, report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import NotApprovedError
from airflow_approvals.lineage.remembered import remember
from airflow_approvals.operators.waiting import (
    ask,
    come_back,
    is_held_by,
    is_used_by_earlier_try,
    refusals_are_final,
    request_id_of,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.core.model import Action, ApprovalRequest, Evidence
    from airflow_approvals.hooks.approvals import ApprovalsHook

_NEEDED = ("kind", "source", "destination", "pii_report")
"""What a gate asks with; given in the DAG, it must be there when the task runs."""


def execute(task: Any, context: Context, act: Callable[[Context], Any]) -> Any:
    """Ask, and act once it is approved; until then, defer."""
    if not _is_gated(task, context):
        return act(context)
    with _hook(context) as hook:
        with refusals_are_final():
            action, evidence = _action(task), _evidence(task, hook)
            request = ask(
                task,
                context,
                hook,
                action=action,
                evidence=evidence,
                policy=task.approvals_policy,
                on_denied=task.approvals_terms.on_denied,
            )
            hook.redeem(request.id, action=action, evidence=evidence)
        return _act(hook, request, lambda: act(context))


def resume(task: Any, context: Context, event: dict[str, Any] | None, act: Callable[[Context], Any]) -> Any:
    """Act after the wait, if the task and its source still are what was approved."""
    _is_gated(task, context)  # it was when it asked; what it redeems must be what was approved
    with _hook(context) as hook:
        with refusals_are_final():
            if is_used_by_earlier_try(context, hook, event):
                return execute(task, context, act)
            request = come_back(task, context, hook, event, on_denied=task.approvals_terms.on_denied)
            # A foreign operator reads its source by itself: read it again, as late as can be.
            hook.redeem(request.id, action=_action(task), evidence=_evidence(task, hook))
        return _act(hook, request, lambda: act(context))


def resume_own(task: Any, context: Context, go_on: Callable[[], Any], *, failed: bool) -> Any:
    """Let the operator go on after a defer of its own, if this very try has redeemed; nothing else gets here.

    `failed` says that Airflow resumes the task only to fail it.
    """
    if not _is_gated(task, context):
        return go_on()
    with _hook(context) as hook:
        request_id = request_id_of(context)
        with refusals_are_final():
            request = hook.get_request(request_id) if request_id else None
            if request is not None and is_held_by(request, hook.ti_id):
                held = request
                remember(task, request)
            elif failed:
                return go_on()
            else:
                raise NotApprovedError(
                    f"task {task.task_id}: it was resumed by its own trigger, but this try has redeemed no "
                    "approval; nothing was done; clear it to ask"
                )
        return _act(hook, held, go_on)


def _act(hook: ApprovalsHook, request: ApprovalRequest, act: Callable[[], Any]) -> Any:
    with hook.reporting(request.id) as report:
        # What a foreign operator moves cannot be hashed on its way: it is what was at the source just before.
        report.digest = next((dataset.sha256 for dataset in request.evidence.datasets), None)
        return act()


def _hook(context: Context) -> ApprovalsHook:
    from airflow_approvals.hooks.approvals import ApprovalsHook

    return ApprovalsHook.of(context)


def _is_gated(task: Any, context: Context) -> bool:
    """Return whether this task asks, and set what it asks with where a rule of the platform owner says so.

    A destination that cannot be rendered, or be read in one way only, ends the task: it is never free.
    """
    terms = task.approvals_terms
    if not terms.rules:
        return True
    from airflow_approvals.core.gated_rules import is_for_destination

    for rule in terms.rules:
        destination = None
        if rule.destination is not None:
            with refusals_are_final():
                template = task.get_template_env().from_string(rule.destination)
                destination = str(template.render({**context, "task": task}))
                if not is_for_destination(rule, destination):
                    continue
        task.approvals_policy, task.approvals_kind = rule.policy, rule.kind
        if destination is not None:
            task.approvals_destination = destination
        task.approvals_terms = terms._replace(
            show=tuple(dict.fromkeys([*terms.show, *(n for n in rule.show if n in terms.own_fields)])),
            connections=(*terms.connections, *rule.connections),
            variables=(*terms.variables, *rule.variables),
        )
        return True
    return False


def _lent_to(task: Any) -> dict[str, Any]:
    """Return the connections and variables that the approval lets this task read, where there are any."""
    from airflow_approvals.operators.named_connections import connections_of

    terms = task.approvals_terms
    names = {
        "connections": sorted({*connections_of(task).ids, *terms.connections}),
        "variables": sorted(set(terms.variables)),
    }
    return {kind: named for kind, named in names.items() if named}


def _action(task: Any) -> Action:
    from airflow_approvals.core.model import Action
    from airflow_approvals.operators.fingerprints import describe_task

    _check_rendered(task)
    terms = task.approvals_terms
    told = describe_task(task, fields=terms.own_fields, show=terms.show)
    return Action(
        kind=task.approvals_kind,
        source=task.approvals_source,
        destination=task.approvals_destination,
        parameters={
            **(task.approvals_parameters or {}),
            "task": {"task_id": task.task_id, **told, **_lent_to(task)},
        },
        justification=task.approvals_justification,
    )


def _check_rendered(task: Any) -> None:
    from airflow_approvals.operators.names import GATE_FIELDS
    from airflow_approvals.operators.rendered import check_rendered

    own_words = {name: name.removeprefix("approvals_") for name in GATE_FIELDS}
    check_rendered(
        task.task_id,
        {word: getattr(task, name) for name, word in own_words.items()},
        needed=[word for name, word in own_words.items() if word in _NEEDED and getattr(type(task), name)],
    )


def _evidence(task: Any, hook: ApprovalsHook) -> Evidence:
    from airflow_approvals.core.model import Evidence
    from airflow_approvals.operators.reports import evidence_of

    if task.approvals_source is None:
        return Evidence()
    conn_id = task.approvals_source_conn_id
    dataset = hook.snapshot(task.approvals_source, conn_id=conn_id)
    pii = evidence_of(task.approvals_pii_report, dataset, conn_id=conn_id)
    return Evidence(datasets=(dataset,), pii=pii)
