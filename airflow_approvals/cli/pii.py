"""`pii scan`, `plan`, `mask`, `verify`: personal data in files and tables, without a running Airflow."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.opening import uri_of
from airflow_approvals.cli.output import print_json, print_line, print_problem
from airflow_approvals.cli.pii_showing import print_masked, print_plan, print_scan, print_verified
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import to_json

if TYPE_CHECKING:
    from airflow_approvals.pii.masking.keys import KeyRing
    from airflow_approvals.pii.masking.operators import Operator
    from airflow_approvals.pii.plan import MaskingPlan
    from airflow_approvals.pii.scan_datasets import DatasetScan, Progress
    from airflow_approvals.pii.scanner import Scanner
    from airflow_approvals.pii.verify_report import VerifyReport

OPERATORS = ("replace", "redact", "mask", "hash", "pseudonym", "fake", "encrypt")
"""Those that need no more than a key; dates moved or made coarser are written into the plan."""
DOMAIN = "default"


def scan(args: Namespace) -> int:
    """Tell what is in every column; exit code 8 with `--on-pii fail` where there is any."""
    from airflow_approvals.pii.chart import counts_of_scan, write_chart
    from airflow_approvals.pii.sql_tables import staged

    _check_chart(args.chart)
    _check_folder("--report", args.report)
    with staged(uri_of(args.path), args.conn_id, args.format) as source:
        found = _scanned(args, source)
    _write_report(args.report, to_json(found))
    if args.chart:
        write_chart(Path(args.chart), counts_of_scan(found.report), title=f"Personal data in {args.path}")
    if args.output == "json":
        print_json(to_json(found))
    else:
        print_scan(found)
    if args.on_pii == "fail" and any(column.strong for column in found.report.columns):
        print_problem(f"{args.path}: holds personal data, and --on-pii fail was asked for")
        return Exit.PII_FOUND
    return Exit.OK


def plan(args: Namespace) -> int:
    """Draw up a masking plan from a sample, for people to review."""
    from airflow_approvals.pii.plan import write_plan
    from airflow_approvals.pii.sql_tables import staged

    _check_folder("--plan", args.plan)
    if args.plan and Path(args.plan).exists() and not args.overwrite:
        raise InvalidRequestError(f"{args.plan}: is there already; give another name, or --overwrite")
    with staged(uri_of(args.path), args.conn_id, args.format) as source:
        drawn = _planned(args, source, _scanner(args))
    if args.plan:
        write_plan(drawn, Path(args.plan))
    if args.output == "json":
        print_json({**drawn.model_dump(mode="json"), "digest": drawn.digest})
    else:
        print_plan(drawn)
        print_line(
            f"written to {args.plan}" if args.plan else "--plan FILE writes it down, to review and pin"
        )
    return Exit.OK


def mask(args: Namespace) -> int:
    """Mask a dataset into another one, which appears only if masking holds; exit code 5 if it does not."""
    from airflow_approvals.pii.chart import counts_of_masking, write_chart
    from airflow_approvals.pii.sql_tables import mask_staged, staged

    _check_chart(args.chart)
    _check_folder("--report", args.report)
    keys, scanner = _keys(args), _scanner(args)
    with staged(uri_of(args.path), args.conn_id, args.format) as source:
        drawn = _read_plan(args) or _planned(args, source, scanner)

        def tell_what_is_left(verified: VerifyReport) -> None:
            if not verified.verified:
                _tell_what_is_left(args, drawn, verified)

        made = mask_staged(
            source,
            uri_of(args.destination),
            drawn.rules(),
            keys,
            scanner,
            overwrite=args.overwrite,
            told=tell_what_is_left,
        )
    report = {"plan_digest": drawn.digest, "masking": to_json(made.masking), "verify": to_json(made.verified)}
    _write_report(args.report, report)
    if args.chart:
        counts = counts_of_masking(made.masking, made.verified)
        write_chart(Path(args.chart), counts, title=f"Personal data in {args.path}, masked")
    if args.output == "json":
        print_json(report)
    else:
        print_masked(made.masking, made.verified, plan_digest=drawn.digest)
    return Exit.OK


def verify(args: Namespace) -> int:
    """Hold a masked dataset against its source; exit code 5 where masking does not hold."""
    from airflow_approvals.pii.sql_tables import staged
    from airflow_approvals.pii.verify_datasets import verify_masked

    _check_folder("--report", args.report)
    drawn = _read_plan(args)
    if drawn is None:
        raise InvalidRequestError("--plan: expected the masking plan that the data was masked by")
    keys, scanner = _keys(args) if args.key_file else None, _scanner(args)
    with (
        staged(uri_of(args.source), args.conn_id, args.format) as source,
        staged(uri_of(args.masked), args.conn_id, args.format) as masked,
    ):
        report = verify_masked(
            source.uri,
            masked.uri,
            drawn.rules(),
            scanner,
            keys=keys,
            source_conn_id=source.conn_id,
            masked_conn_id=masked.conn_id,
            format=args.format,
        )
    _write_report(args.report, to_json(report))
    if args.output == "json":
        print_json(to_json(report))
    else:
        print_verified(report)
    report.check()
    return Exit.OK


def _tell_what_is_left(args: Namespace, plan: MaskingPlan, verified: VerifyReport) -> None:
    report = {"plan_digest": plan.digest, "verify": to_json(verified)}
    _write_report(args.report, report)
    if args.output == "json":
        print_json(report)
    else:
        print_verified(verified)


def _scanned(args: Namespace, source: Any) -> DatasetScan:
    from airflow_approvals.pii.scan_datasets import scan_dataset

    if args.engine == "spark":
        from airflow_approvals.pii.spark import scan_dataset_on_spark, session_for

        config = _config(args)
        with session_for(config) as session:
            return scan_dataset_on_spark(
                session, source.uri, config, conn_id=source.conn_id, format=source.format
            )
    with _progress(args) as progress:
        return scan_dataset(
            source.uri, _scanner(args), conn_id=source.conn_id, format=source.format, progress=progress
        )


def _config(args: Namespace) -> Any:
    from airflow_approvals.pii.config import ScanConfig

    settings: dict[str, Any] = {"language": args.language}
    for name in ("nlp_conf", "recognizers_conf"):
        if getattr(args, name):
            settings[name] = Path(getattr(args, name))
    if args.model:
        settings["model"] = args.model
    for name in ("workers", "exact_check"):
        value = getattr(args, name, None)
        if value is not None:
            if value < (1 if name == "workers" else 0):
                raise InvalidRequestError(f"--{name.replace('_', '-')}: expected a positive number")
            settings[name] = value
    return ScanConfig(**settings)


def _scanner(args: Namespace) -> Scanner:
    from airflow_approvals.pii.scanner import Scanner

    return Scanner(_config(args))


def _planned(args: Namespace, source: Any, scanner: Scanner) -> MaskingPlan:
    from airflow_approvals.pii.scan_datasets import plan_dataset

    operators, otherwise = _operators(args.operator, args.domain)
    return plan_dataset(
        source.uri,
        scanner,
        conn_id=source.conn_id,
        format=source.format,
        operators=operators,
        otherwise=otherwise,
    )


def _read_plan(args: Namespace) -> MaskingPlan | None:
    from airflow_approvals.pii.plan import read_plan

    if not args.plan:
        if args.pin:
            raise InvalidRequestError("--pin: expected --plan FILE beside it")
        return None
    return read_plan(Path(args.plan), pinned=args.pin)


def _operators(words: Sequence[str], domain: str) -> tuple[dict[str, Operator], Operator | None]:
    by_entity: dict[str, Operator] = {}
    otherwise: Operator | None = None
    for word in words:
        entity, equals, name = word.rpartition("=")
        operator = _operator(name, domain)
        if equals:
            by_entity[entity] = operator
        else:
            otherwise = operator
    return by_entity, otherwise


def _operator(name: str, domain: str) -> Operator:
    from airflow_approvals.pii.masking import operators

    if name not in OPERATORS:
        raise InvalidRequestError(f"--operator {name}: expected one of {', '.join(OPERATORS)}")
    cls = getattr(operators, name.capitalize())
    made: Operator = cls(domain=domain) if name in ("hash", "pseudonym", "fake", "encrypt") else cls()
    return made


def _keys(args: Namespace) -> KeyRing:
    from airflow_approvals.pii.masking.key_files import read_key_file
    from airflow_approvals.pii.masking.keys import KeyRing

    return read_key_file(Path(args.key_file)) if args.key_file else KeyRing()


def _check_chart(path: str | None) -> None:
    """Refuse before the work is done, not after."""
    if path:
        from airflow_approvals.pii.chart import check_name

        check_name(Path(path))
        _check_folder("--chart", path)


def _check_folder(named: str, path: str | None) -> None:
    """Refuse a file that cannot be written: masked data must not appear without its report."""
    if path and not Path(path).absolute().parent.is_dir():
        raise InvalidRequestError(f"{named} {path}: there is no such folder; make it, or name another")


def _write_report(path: str | None, report: Any) -> None:
    if path:
        Path(path).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _progress(args: Namespace) -> Iterator[Progress | None]:
    """Show rows and rows a second on stderr, where somebody is looking."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if args.output == "json" or not console.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("loading the model", total=None)
        first: list[tuple[float, int]] = []

        def told(rows: int) -> None:
            now = time.monotonic()
            first.append((now, rows))
            (began, before), seconds = first[0], now - first[0][0]
            rate = f", {(rows - before) / seconds:,.0f} a second" if seconds and began else ""
            shown.update(task, description=f"{rows:,} rows{rate}")
            del first[1:]

        yield told
