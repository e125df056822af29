"""What gates, writes and gated tasks tell of their runs, as Airflow's OpenLineage provider asks for it.

Imported by the operators' `get_openlineage_facets_on_...` alone, so that DAG files load without it. Whatever
goes wrong here costs the event its facets and nothing else: the provider logs it and sends the event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from attrs import evolve

from airflow_approvals.core.model import ApprovalRequest, Snapshot, State
from airflow_approvals.lineage import facets
from airflow_approvals.lineage.approval import (
    Site,
    how_approved,
    input_of,
    job_of,
    receipt_dataset,
    receipt_facets,
    release_facet,
    run_facet,
)
from airflow_approvals.lineage.facets import Facets
from airflow_approvals.lineage.names import DatasetName, dataset_of, run_id_of
from airflow_approvals.lineage.provided import Lineage, lineage, made, read
from airflow_approvals.lineage.remembered import remembered
from airflow_approvals.settings import read_settings

_NEVER_APPROVED = frozenset({State.PENDING, State.DENIED, State.EXPIRED, State.CANCELLED, State.SUPERSEDED})
_METHODS = {
    "start": ("get_openlineage_facets_on_start",),
    "complete": ("get_openlineage_facets_on_complete", "get_openlineage_facets_on_start"),
    "failure": (
        "get_openlineage_facets_on_failure",
        "get_openlineage_facets_on_complete",
        "get_openlineage_facets_on_start",
    ),
}
"""Which method the provider would ask an operator for, and which in its place."""


def reading(source: str) -> Lineage:
    """Return what a task that will write tells at its start: what it reads, by name.

    Inputs must be there: Marquez hides the edges of a job whose last event has none.
    """
    return lineage(inputs=[read(dataset_of(source))])


def written(
    operator: Any,
    destination: DatasetName,
    *,
    succeeded: bool,
    change: str | None,
    renamed: Mapping[str, str] | None = None,
) -> Lineage:
    """Return what a write tells at its end: what it read, which approval it used, and what it made of it.

    `change` is CREATE or OVERWRITE, or None where rows were added; `renamed` has the new names of columns.
    """

    def told(request: ApprovalRequest, data: Snapshot) -> tuple[Facets, Facets]:
        about = _released(request, data, _site(), change=change, renamed=renamed or {})
        return about, writing(data)

    return _ended(operator, destination, told, succeeded=succeeded)


def decrypted(
    operator: Any, destination: DatasetName, *, columns: Sequence[str], overwrite: bool, succeeded: bool
) -> Lineage:
    """Return what opening tokens tells at its end: other bytes than those that were approved were written.

    So the output says which columns were opened and by which approval, but carries no release of its own.
    """

    def told(request: ApprovalRequest, data: Snapshot) -> tuple[Facets, Facets]:
        same = {each.name: each.name for each in data.columns}
        about = {
            "schema": facets.schema(data.columns),
            "columnLineage": facets.column_lineage(dataset_of(data.uri), same, opened=columns),
            "documentation": facets.documentation(
                f"Opened by approval {request.id}: policy {request.policy}, {how_approved(request)}"
            ),
            "lifecycleStateChange": facets.lifecycle("OVERWRITE" if overwrite else "CREATE"),
        }
        return about, {"outputStatistics": facets.rows_written(data.rows)}

    return _ended(operator, destination, told, succeeded=succeeded)


def _ended(
    operator: Any,
    destination: DatasetName,
    told: Callable[[ApprovalRequest, Snapshot], tuple[Facets, Facets]],
    *,
    succeeded: bool,
) -> Lineage:
    """Return what a task tells that used its approval; `told` gives the facets of what it wrote."""
    request = remembered(operator)
    if request is None:
        return reading(operator.source)
    outputs = []
    if succeeded and request.evidence.datasets:
        outputs.append(made(destination, *told(request, request.evidence.datasets[0])))
    return _used(request, outputs, succeeded=succeeded)


def asked(operator: Any) -> Lineage:
    """Return what a gate of its own, or a sensor, tells: the approval, and no data, as it touches none."""
    request = remembered(operator)
    return lineage(run_facets=_run_facets(request, _site()) if request else {})


def gated(task: Any, own: Callable[[str], Any], moment: str, *given: Any) -> Lineage:
    """Return what a gated operator tells by itself, and the approval that it acts by.

    `own` finds a method of the operator's class; `moment` is start, complete or failure.
    """
    found = _own(own, moment, *given)
    request = remembered(task)
    if request is None:
        return found
    site = _site()
    inputs, outputs = list(found.inputs), list(found.outputs)
    if not inputs and not outputs:
        inputs, outputs = _named(task, succeeded=moment == "complete")
    if (inputs or outputs) and request.receipt is not None:
        inputs.append(_receipt(request, site))
    run_facets = {**found.run_facets, **_run_facets(request, site)}
    return evolve(found, inputs=inputs, outputs=outputs, run_facets=run_facets)


def approval_run_facet(task_instance: Any, _state: Any) -> dict[str, Any]:
    """Return the approval of any gated task, for `[openlineage] custom_run_facets`.

    Operators that the provider has extractors for (`PythonOperator`, `BashOperator`) are not asked.
    """
    request = remembered(getattr(task_instance, "task", None))
    return {facets.APPROVAL: run_facet(request, _site())} if request else {}


def table_of(conn_id: str, table: str) -> DatasetName:
    """Return how a table is named: by its database where the hook knows that, else by the connection."""
    from airflow.sdk import BaseHook

    hook: Any = BaseHook.get_hook(conn_id)
    try:
        place = hook.get_openlineage_database_info(hook.get_connection(conn_id))
    except (AttributeError, NotImplementedError):
        place = None
    if place is None:
        return dataset_of(f"sql://{conn_id}/{table}")
    # The hook would ask the database for its schema; lineage opens no connections.
    name = table if "." in table else f"public.{table}"
    return dataset_of(f"{place.scheme}://{place.authority or conn_id}/{place.database}.{name}")


def writing(data: Snapshot) -> Facets:
    """Return the facets of having written a dataset."""
    found = {"outputStatistics": facets.output_statistics(data)}
    if len(data.files) > 1:
        found["subset"] = facets.output_subset(data)
    return found


def _used(request: ApprovalRequest, outputs: list[Any], *, succeeded: bool) -> Lineage:
    """Return what a write tells that has asked: what it read, and the approval that it used."""
    site = _site()
    inputs = [read(*input_of(data, request.evidence)) for data in request.evidence.datasets]
    if request.receipt is not None:
        inputs.append(_receipt(request, site))
    state = State.COMPLETED if succeeded else None
    return lineage(inputs=inputs, outputs=outputs, run_facets=_run_facets(request, site, state))


def _released(
    request: ApprovalRequest, data: Snapshot, site: Site, *, change: str | None, renamed: Mapping[str, str]
) -> dict[str, Any]:
    columns = [
        replace(column, name=renamed[column.name]) if column.name in renamed else column
        for column in data.columns
    ]
    origins = {new.name: old.name for new, old in zip(columns, data.columns, strict=True)}
    about: dict[str, Any] = {
        "schema": facets.schema(columns),
        "version": facets.version(data.sha256),
        "columnLineage": facets.column_lineage(dataset_of(data.uri), origins),
        "documentation": facets.documentation(
            f"Released by approval {request.id}: policy {request.policy}, {how_approved(request)}"
        ),
        facets.RELEASE: release_facet(request, data, site),
    }
    if change is not None:
        about["lifecycleStateChange"] = facets.lifecycle(change)
    if request.evidence.pii is not None:
        about["tags"] = facets.pii_tags(facets.pii_classes(request.evidence.pii))
    return about


def _receipt(request: ApprovalRequest, site: Site) -> Any:
    return read(receipt_dataset(request, site), receipt_facets(request))


def _run_facets(request: ApprovalRequest, site: Site, state: State | None = None) -> Facets:
    # The operator has last seen its request before it redeemed it.
    found = {facets.APPROVAL: run_facet(request, site, state=state)}
    if request.state not in _NEVER_APPROVED:
        found["jobDependencies"] = facets.job_dependency(
            site.namespace, job_of(request), run_id_of(request.id)
        )
    return found


def _site() -> Site:
    from airflow.providers.openlineage import conf

    return Site(namespace=str(conf.namespace()), base_url=read_settings().base_url)


def _own(own: Callable[[str], Any], moment: str, *given: Any) -> Lineage:
    for name in _METHODS[moment]:
        method = own(name)
        if callable(method):
            found: Lineage | None = method() if name == _METHODS["start"][0] else method(*given)
            return lineage() if found is None else found
    return lineage()


def _named(task: Any, *, succeeded: bool) -> tuple[list[Any], list[Any]]:
    """Return what the gate was told that a foreign task reads and writes; nothing of it is guessed."""
    inputs = [read(dataset_of(task.approvals_source))] if task.approvals_source else []
    if not succeeded or not task.approvals_destination:
        return inputs, []
    return inputs, [made(dataset_of(task.approvals_destination))]
