"""Personal data by column, laid out for people: found, planned, masked, left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from airflow_approvals.cli.output import print_line, stdout, visible

if TYPE_CHECKING:
    from airflow_approvals.pii.masking.datasets import MaskReport
    from airflow_approvals.pii.plan import MaskingPlan, PlannedColumn
    from airflow_approvals.pii.report import ColumnReport
    from airflow_approvals.pii.scan_datasets import DatasetScan
    from airflow_approvals.pii.verify_report import VerifyReport

NOTHING = "-"


def print_scan(found: DatasetScan) -> None:
    """Write one line for each entity type of each column, then what was scanned and by what."""
    report = found.report
    stdout().print(scan_table(report.columns))
    skipped = sum(column.skipped for column in report.columns)
    print_line()
    print_line(
        f"{report.rows:,} rows, {len(report.columns)} columns, {report.findings:,} findings"
        + (f", {skipped:,} cells without any text in them (bytes) not scanned" if skipped else "")
    )
    print_line(f"sha256 {found.sha256}")
    print_line(report.engine, style="dim")
    if report.checked_cells:
        print_line(f"{report.checked_cells:,} cells given to AnalyzerEngine as well: the same findings")


def scan_table(columns: Iterable[ColumnReport]) -> Table:
    """Return the table of a scan; what scores too low to be masked is counted, dimmed, behind the others."""
    from airflow_approvals.pii.masking.rules import LEAST_SCORE

    table = _table("column", "type")
    for name in ("cells", "null"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("in cells", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    for column in columns:
        strong = sorted(column.strong, key=lambda one: (-one.cells, one.entity_type))
        weak = len(column.entities) - len(strong)
        found = Text("\n".join(one.entity_type for one in strong) or NOTHING)
        if weak:
            found.append(f"\n+ {weak} below {LEAST_SCORE}", style="dim")
        table.add_row(
            Text(visible(column.column), style="bold" if strong else ""),
            Text(visible(column.type), style="dim"),
            f"{column.scanned:,}",
            f"{column.nulls:,}",
            found,
            "\n".join(f"{one.cells:,}" for one in strong),
            "\n".join(f"{one.share:.0%}" if one.share >= 0.01 else "<1%" for one in strong),
            "\n".join(_scores(one.score_min, one.score_max) for one in strong),
        )
    return table


def print_plan(plan: MaskingPlan) -> None:
    """Write what a plan does with every column, and why."""
    table = _table("column", "type", "treatment")
    table.add_column("as", overflow="fold")
    table.add_column("why", overflow="fold", ratio=1)
    for column in plan.columns:
        table.add_row(
            Text(visible(column.column), style="bold"),
            Text(visible(column.type), style="dim"),
            Text(column.treatment.value, style="dim" if column.treatment == "leave" else ""),
            Text(visible(_said(column))),
            Text(visible(column.because), style="dim"),
        )
    stdout().print(table)
    print_line()
    print_line(f"plan sha256 {plan.digest}, from {plan.sampled_rows:,} sampled rows")


def print_masked(masking: MaskReport, verified: VerifyReport, *, plan_digest: str) -> None:
    """Write what was masked in every column, and what is left there."""
    table = _table("column")
    table.add_column("masked", overflow="fold")
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    left = {leak.column: 0 for leak in verified.leaks}
    for leak in verified.leaks:
        left[leak.column] += leak.count
    for column, counts in masking.masked.items():
        shown = {entity: count for entity, count in sorted(counts.items()) if count}
        what = "\n".join(shown) or ("dropped" if column in masking.dropped else NOTHING)
        remains = left.get(column, 0)
        table.add_row(
            Text(visible(column), style="bold"),
            Text(visible(what), style="" if shown else "dim"),
            "\n".join(f"{count:,}" for count in shown.values()),
            Text(f"{remains:,}", style="red" if remains else "green"),
        )
    stdout().print(table)
    print_line()
    print_line(f"{masking.rows:,} rows, {masking.values:,} distinct values; plan sha256 {plan_digest}")
    print_line(f"sha256 {masking.source_sha256} became {masking.sha256}")
    print_verified(verified)


def print_verified(report: VerifyReport) -> None:
    """Write whether masking holds; which columns, types and rows where it does not."""
    if report.verified:
        print_line(
            f"verified: none of {report.values_searched:,} values stands anywhere in {report.rows:,} rows",
            style="green",
        )
        return
    table = _table("column", "type", "how")
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("rows, the first is 0", overflow="fold")
    for leak in report.leaks:
        table.add_row(
            Text(visible(leak.column), style="bold"),
            leak.entity_type,
            leak.found.value,
            f"{leak.count:,}",
            ", ".join(map(str, leak.rows)) + (" …" if leak.count > len(leak.rows) else ""),
        )
    stdout().print(table)
    for sentence in report.broken:
        print_line(sentence, style="red")


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _said(column: PlannedColumn) -> str:
    if column.treatment == "cell" and column.operator is not None:
        becomes = f", becomes {column.becomes}" if column.becomes else ""
        return f"{column.entity_type}: {column.operator.op}{becomes}"
    if column.treatment in ("text", "leaves"):
        words = [_by_type(column.by_entity), f"otherwise {column.otherwise.op}" if column.by_entity else ""]
        words[0] = words[0] or column.otherwise.op
        leaves = [f"{leaf.path} {leaf.entity_type}" for leaf in column.leaves]
        return "\n".join([", ".join(filter(None, words)), *leaves])
    return ""


def _by_type(operators: Mapping[str, object]) -> str:
    return ", ".join(f"{entity}: {getattr(one, 'op', '')}" for entity, one in operators.items())


def _scores(least: float, most: float) -> str:
    return f"{most:.2f}" if least == most else f"{least:.2f} to {most:.2f}"
