"""What `@task.pii` makes of a function: a task that looks at its result before anybody gets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.operators.pii import (
    check_masked,
    check_on_pii,
    plan_source,
    refusals_are_final,
    scan_and_act,
)
from airflow_approvals.operators.pii_keys import key_ring
from airflow_approvals.operators.rendered import check_fields, given

if TYPE_CHECKING:
    from airflow.sdk import Context

FACTS_KEY = "pii"
"""The XCom with the facts about a staged dataset: what `PiiScanOperator` returns."""


class PiiTask(DecoratedOperator, PythonOperator):
    """Runs the function, then looks at what it returned: a pandas `DataFrame`, or where a dataset is staged.

    :param on_pii: `warn` says in the log what was found and hands the result on; `fail` fails the task;
        `mask` hands on a masked and verified one instead.
    :param masked: with `mask` and a staged dataset, the dataset that is made; its path is handed on.

    The others are those of `PiiScanOperator`.
    """

    custom_operator_name = "@task.pii"
    template_fields: Sequence[str] = (
        "templates_dict",
        "op_args",
        "op_kwargs",
        "masked",
        "plan",
        "plan_digest",
        "keys_conn_id",
        "key_file",
        "scan",
        "report",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "templates_dict": "json",
        "op_args": "py",
        "op_kwargs": "py",
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        on_pii: str = "warn",
        masked: str | None = None,
        plan: str | None = None,
        plan_digest: str | None = None,
        operators: Mapping[str, str | Mapping[str, Any]] | None = None,
        otherwise: str | Mapping[str, Any] = "replace",
        domain: str = "default",
        keys_conn_id: str | None = None,
        key_file: str | None = None,
        scan: Mapping[str, Any] | None = None,
        report: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_on_pii(on_pii)
        super().__init__(
            kwargs_to_upstream={
                "python_callable": python_callable,
                "op_args": op_args,
                "op_kwargs": op_kwargs,
            },
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )
        self.on_pii = on_pii
        self.masked = masked
        self.plan = plan
        self.plan_digest = plan_digest
        self.operators = operators
        self.otherwise = otherwise
        self.domain = domain
        self.keys_conn_id = keys_conn_id
        self.key_file = key_file
        self.scan = scan
        self.report = report
        self.given_fields = given(
            masked=masked,
            plan=plan,
            plan_digest=plan_digest,
            keys_conn_id=keys_conn_id,
            key_file=key_file,
            report=report,
        )

    def execute(self, context: Context) -> Any:
        with refusals_are_final():
            check_fields(self)
        made = super().execute(context)
        with refusals_are_final():
            if isinstance(made, str):
                return self._staged(context, made)
            import pandas as pd

            if isinstance(made, pd.DataFrame):
                return self._frame(made)
            raise InvalidRequestError(
                f"task {self.task_id}: expected a DataFrame or the path of a staged dataset, found "
                f"{type(made).__name__}; nothing was scanned, so nothing is handed on"
            )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        from airflow_approvals.lineage.masking import told

        return told(self)

    def _staged(self, context: Context, uri: str) -> str:
        check_masked(self.on_pii, self.masked)
        context["ti"].xcom_push(key=FACTS_KEY, value=scan_and_act(self, uri))
        return uri if self.masked is None else self.masked

    def _frame(self, frame: Any) -> Any:
        from airflow_approvals.pii.frames import check_clean_frame, mask_pii, scan_pii
        from airflow_approvals.pii.steps import read_planned, scanner_of

        if self.masked is not None:
            raise InvalidRequestError("masked: a DataFrame is handed on itself; this is for staged datasets")
        scanner = scanner_of(self.scan)
        if self.on_pii == "mask":
            wanted = plan_source(self)
            return mask_pii(
                frame,
                plan=None if wanted.file is None else read_planned(wanted),
                keys=key_ring(conn_id=self.keys_conn_id, key_file=self.key_file),
                operators=wanted.by_entity(),
                otherwise=wanted.for_others(),
                scanner=scanner,
            )
        report = scan_pii(frame, scanner=scanner)
        if self.on_pii == "fail":
            check_clean_frame(report)
        self.log.info("%d findings in %d columns", report.findings, len(report.columns))
        return frame
