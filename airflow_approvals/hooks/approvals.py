"""What a running task asks the service with: open, read, redeem, report. It can never vote.

Operators stand on it, and custom operators and `@task` functions use it directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from airflow.sdk import BaseHook

from airflow_approvals.core.errors import (
    ApprovalsError,
    DigestMismatchError,
    InvalidRequestError,
    ReceiptGoneError,
    ReceiptInvalidError,
    ServiceUnavailableError,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_approvals.client.api import ApprovalsClient
    from airflow_approvals.core.model import Action, ApprovalRequest, Column, Evidence, Snapshot
    from airflow_approvals.core.receipt import Receipt
    from airflow_approvals.settings import Settings

CLOCK_TOLERANCE = timedelta(seconds=60)
"""By how much this machine's clock may differ from the server's, which judges the time of a redeem."""
OUTCOME_PATIENCE = 600.0
"""Seconds for which the outcome is reported again and again: it must not be lost with the API server."""
MAX_DETAIL = 1000
"""Characters of an outcome's detail."""

UNFINISHED = frozenset({"TaskDeferred", "TaskAwaitingInput", "AirflowRescheduleException"})
"""Airflow's ways to leave a task that goes on later, by name: not every version has all of them."""
FINISHED = frozenset({"DownstreamTasksSkipped", "DagRunTriggerException"})
"""Airflow's ways to leave a task that has done what it does."""
SKIPPED = "the task skipped itself"
"""Outcome of a task that ended so: whether it had moved anything before, nobody has told."""


@dataclass(frozen=True, kw_only=True)
class Redeemed:
    """An approval that this task instance has used up: what was approved, and the proof of it."""

    request: ApprovalRequest
    receipt: Receipt
    bundle: dict[str, Any]  # receipt and ledger proof; `airflow-approvals verify` checks it offline

    @property
    def snapshot(self) -> Snapshot:
        """The one dataset that was approved."""
        return dataset_of(self.request)


@dataclass(kw_only=True)
class Report:
    """What the block under `reporting` found out about its own outcome."""

    digest: str | None = None
    detail: str = ""
    done: bool = False  # the write stands, although the block was ended before it could say so


class ApprovalsHook(BaseHook):
    """The service, as one running task instance sees it.

    Use it as a context manager, or `close` it. `ti_id` is the task instance that speaks; by default the one
    that runs here. There is no Airflow connection behind it: the credential is derived from `[approvals]
    worker_secret`.
    """

    def __init__(self, *, ti_id: str | None = None, settings: Settings | None = None) -> None:
        super().__init__()
        self._ti_id = ti_id
        self._settings = settings

    @classmethod
    def of(cls, context: Context) -> Self:
        """Return the hook of the task instance that `context` belongs to."""
        return cls(ti_id=str(context["ti"].id))

    @cached_property
    def ti_id(self) -> str:
        if self._ti_id is not None:
            return self._ti_id
        from airflow.sdk import get_current_context

        return str(get_current_context()["ti"].id)

    @cached_property
    def settings(self) -> Settings:
        if self._settings is not None:
            return self._settings
        from airflow_approvals.settings import read_settings

        return read_settings()

    @cached_property
    def client(self) -> ApprovalsClient:
        from airflow_approvals.client.api import worker_client

        return worker_client(self.ti_id, self.settings)

    def close(self) -> None:
        """Close the connection to the service, if there is one."""
        if "client" in self.__dict__:
            self.client.close()
            del self.__dict__["client"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- ask ----------------------------------------------------------------------------------------------

    def snapshot(
        self,
        uri: str,
        *,
        conn_id: str | None = None,
        format: str | None = None,  # the word that users know
        columns: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """Read the dataset once and return what it is; `columns` are the expected names and Arrow types."""
        from airflow_approvals.staging.snapshot import snapshot

        return snapshot(uri, conn_id=conn_id, format=format, columns=_columns(columns))

    def open_request(
        self, action: Action, evidence: Evidence, *, gate: str = "", policy: str | None = None
    ) -> ApprovalRequest:
        """Ask for `action`; the same task asking for the same again gets the request that it already has."""
        from airflow_approvals.service import Opening

        opening = Opening(action=action, evidence=evidence, gate=gate, policy=policy)
        request, created = self.client.open_request(opening)
        self.log.info(
            "%s approval request %s (%s, policy %s): %s",
            "Opened" if created else "Found",
            request.id,
            request.state,
            request.policy,
            link_to(self.settings, request.id),
        )
        return request

    def get_request(self, request_id: str) -> ApprovalRequest:
        """Return the request as it is now, with its receipt once it is approved."""
        from dataclasses import replace

        detail = self.client.get_request(request_id)
        if detail.receipt is None:
            return detail.request
        return replace(detail.request, receipt=detail.receipt["envelope"])

    # --- use ----------------------------------------------------------------------------------------------

    def redeem(self, request_id: str, *, action: Action, evidence: Evidence | None = None) -> Redeemed:
        """Use the approval up for exactly `action`, and return it once its receipt was verified.

        `evidence` is what the data is now; leave it out where the write itself holds the bytes against
        `Redeemed.snapshot`. The justification is the request's own: it says why, not what. Raises
        `DigestMismatchError`, `ReceiptUsedError`, `ReceiptGoneError`, `NotApprovedError`,
        `ReceiptInvalidError`, `ServiceUnavailableError`: in every case, do not act.
        """
        from dataclasses import replace

        from airflow_approvals.core.model import digest_of_action

        request = self.get_request(request_id)
        action = replace(action, justification=request.action.justification)
        digest = digest_of_action(action, evidence or request.evidence)
        if digest != request.action_digest:
            self._let_refuse(request_id, digest)
            raise DigestMismatchError(
                f"request {request_id}: {_differences(request, action, evidence)}; expected digest "
                f"{request.action_digest}, found {digest}; run the task again to ask for what it is now"
            )
        bundle = self.client.redeem(request_id, ti_id=self.ti_id, digest=digest)
        receipt = self._verified(bundle, request, digest)
        return Redeemed(request=request, receipt=receipt, bundle=bundle)

    def report_outcome(
        self, request_id: str, *, published: bool, digest: str | None = None, detail: str = ""
    ) -> ApprovalRequest:
        """Record what the write did, trying for up to ten minutes."""
        from airflow_approvals.client.api import worker_client

        with worker_client(self.ti_id, self.settings, patience=OUTCOME_PATIENCE) as patient:
            return patient.report_outcome(
                request_id, ti_id=self.ti_id, published=published, digest=digest, detail=detail[:MAX_DETAIL]
            )

    @contextmanager
    def redeemed(
        self, request_id: str, *, action: Action, evidence: Evidence | None = None
    ) -> Iterator[Redeemed]:
        """Redeem, run the block, and report its outcome: completed, or failed where it raises or skips."""
        with self.reporting(request_id) as report:
            used = self.redeem(request_id, action=action, evidence=evidence)
            report.digest = next((dataset.sha256 for dataset in used.request.evidence.datasets), None)
            yield used

    @contextmanager
    def reporting(self, request_id: str) -> Iterator[Report]:
        """Report the outcome of the block; one that goes on later (defer, reschedule) reports nothing yet."""
        report = Report()
        try:
            yield report
        except BaseException as error:
            if _goes_on_later(error):
                raise
            if report.done or type(error).__name__ in FINISHED:
                self._report_done(request_id, report)
            else:
                self._report_failed(request_id, report, error)
            raise
        self._report_done(request_id, report)

    def _report_done(self, request_id: str, report: Report) -> None:
        try:
            self.report_outcome(request_id, published=True, digest=report.digest, detail=report.detail)
        except ServiceUnavailableError as error:
            raise ServiceUnavailableError(
                f"request {request_id}: the write is done and stays, but its outcome could not be reported "
                f"for {OUTCOME_PATIENCE:.0f} s; the request is still redeemed: run the task again once the "
                f"service is back ({error})"
            ) from error

    def _report_failed(self, request_id: str, report: Report, error: BaseException) -> None:
        from airflow.providers.common.compat.sdk import AirflowSkipException

        # Foreign messages can hold values from the data: only the kind of the error is told.
        told = str(error) if isinstance(error, ApprovalsError) else type(error).__name__
        told = SKIPPED if isinstance(error, AirflowSkipException) else told
        digest = getattr(error, "found", None) or report.digest
        try:
            self.report_outcome(request_id, published=False, digest=digest, detail=told)
        except ApprovalsError as trouble:
            self.log.warning("Request %s: its failure could not be reported: %s", request_id, trouble)

    def _let_refuse(self, request_id: str, digest: str) -> None:
        """Ask all the same, so that the attempt and its refusal are in the ledger."""
        try:
            self.client.redeem(request_id, ti_id=self.ti_id, digest=digest)
        except ServiceUnavailableError:
            raise
        except ApprovalsError as refusal:
            self.log.warning("Refused: %s", refusal)

    def _verified(self, bundle: dict[str, Any], request: ApprovalRequest, digest: str) -> Receipt:
        """Return the receipt, or raise before anything is written.

        (1) its signature and ledger proof hold, (2) it is of this request and content, (3) it is in time. A
        worker knows no key but those that the service names: a broken receipt is found here, a false one by
        an auditor who brings the key.
        """
        from airflow_approvals.core.model import State
        from airflow_approvals.core.receipt import verify_bundle
        from airflow_approvals.core.signature import public_keys_from_json

        receipt = verify_bundle(bundle, public_keys_from_json(self.client.keys()))  # (1)
        if (receipt.request_id, receipt.action_digest) != (request.id, digest):  # (2)
            raise ReceiptInvalidError(
                f"request {request.id}: expected its receipt for digest {digest}, found one of request "
                f"{receipt.request_id} for {receipt.action_digest}; nothing was done"
            )
        first_use = request.state is State.APPROVED  # a repeat by the same try may come later
        if first_use and datetime.now(UTC) - CLOCK_TOLERANCE >= receipt.not_after:  # (3)
            raise ReceiptGoneError(
                f"request {request.id}: its receipt was good until "
                f"{receipt.not_after:%Y-%m-%d %H:%M:%S} UTC; nothing was done; run the task again to ask anew"
            )
        return receipt


def _goes_on_later(error: BaseException) -> bool:
    if type(error).__name__ == "DagRunTriggerException":
        # Airflow starts the other run, and defers this task until it is over if it was told to.
        return bool(getattr(error, "wait_for_completion", False) and getattr(error, "deferrable", False))
    return type(error).__name__ in UNFINISHED


def dataset_of(request: ApprovalRequest) -> Snapshot:
    """Return the one dataset that was approved; `InvalidRequestError` when there is not exactly one."""
    datasets = request.evidence.datasets
    if len(datasets) != 1:
        raise InvalidRequestError(
            f"request {request.id}: expected one approved dataset, found {len(datasets)}; "
            "open it with a source"
        )
    return datasets[0]


def link_to(settings: Settings, request_id: str) -> str:
    """Return the address of the page of one request."""
    return f"{settings.base_url}/approvals/requests/{request_id}"


def _columns(declared: Mapping[str, str] | None) -> tuple[Column, ...] | None:
    if declared is None:
        return None
    from airflow_approvals.core.model import Column

    return tuple(Column(name=name, type=kind) for name, kind in declared.items())


def _differences(request: ApprovalRequest, action: Action, evidence: Evidence | None) -> str:
    """Return what is no longer as approved: names, URIs and digests, which approvers were shown anyway."""
    told = [
        f"{name} was approved as {getattr(request.action, name)!r} and is {getattr(action, name)!r} now"
        for name in ("kind", "source", "destination")
        if getattr(request.action, name) != getattr(action, name)
    ]
    approved, found = request.action.parameters or {}, action.parameters or {}
    paths = _paths_that_differ(approved, found)
    told += [f"parameter {name} differs" for name in paths]
    if any(name.endswith("python_callable") for name in paths):
        told.append(
            "a function is its source with its defaults, outer variables, and constants and functions of its "
            "file, as this release of airflow-approvals reads them"
        )
    if evidence is not None and evidence != request.evidence:
        before = [dataset.sha256 for dataset in request.evidence.datasets]
        now = [dataset.sha256 for dataset in evidence.datasets]
        told.append(f"the data was approved as sha256 {before} and is {now} now")
    return "; ".join(told) or "what would happen is not what was approved"


def _paths_that_differ(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths: list[str] = []
    for name in sorted(one.keys() | other.keys()):
        left, right = one.get(name), other.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            paths += _paths_that_differ(left, right, f"{prefix}{name}.")
        elif left != right or (name in one) != (name in other):
            paths.append(f"{prefix}{name}")
    return paths
