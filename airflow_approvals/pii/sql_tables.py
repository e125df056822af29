"""Tables as source and destination of scans and masking: staged as Parquet, written back in one transaction.

A table is named `sql://CONN_ID/table` (an Airflow connection), or without Airflow
`sqlite:///folder/file.db#table` and `postgresql://user@host/database#table`. A table that is masked into
another one of the same kind of database keeps its columns' own types; text that is masked becomes unlimited
text, because what stands there now may be longer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_approvals.core.errors import (
    ConfigurationError,
    InvalidRequestError,
    MissingExtraError,
    SourceMissingError,
)
from airflow_approvals.core.model import Column
from airflow_approvals.pii.masking.datasets import MaskReport, mask_dataset
from airflow_approvals.pii.masking.finished import WaitingDataset
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.texts import Finder
from airflow_approvals.pii.verify_datasets import verify_located
from airflow_approvals.pii.verify_report import VerifyReport
from airflow_approvals.staging.locations import locate
from airflow_approvals.staging.sql import write_table
from airflow_approvals.staging.sql_source import stage_table
from airflow_approvals.staging.sql_stored import StoredColumn, StoredTable
from airflow_approvals.staging.sql_tables import NewColumn, family_of

SCHEMES = ("sql://", "sqlite://", "postgresql://")
TEXT = {"postgresql": "text", "sqlite": "TEXT"}
DECLARED = {
    "postgresql": {
        "string": "text", "int": "bigint", "float": "double precision", "bool": "boolean",
        "date": "date", "time": "time", "timestamp": "timestamp", "timestamptz": "timestamptz",
        "binary": "bytea", "nested": "jsonb", "null": "text",
    },
    "sqlite": {
        "string": "TEXT", "int": "INTEGER", "float": "REAL", "bool": "INTEGER", "decimal": "TEXT",
        "date": "TEXT", "time": "TEXT", "timestamp": "TEXT", "timestamptz": "TEXT", "binary": "BLOB",
        "nested": "TEXT", "null": "TEXT",
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset that can be read several times: itself, or the table that was staged there."""

    uri: str
    conn_id: str | None
    format: str | None
    stored: StoredTable | None = None


@dataclass(frozen=True, kw_only=True)
class MaskedSource:
    """What masking did, and the proof that it holds."""

    masking: MaskReport
    verified: VerifyReport


def is_table(uri: str) -> bool:
    """Return whether a URI names a table."""
    return uri.startswith(SCHEMES)


@contextmanager
def staged(uri: str, conn_id: str | None = None, format: str | None = None) -> Iterator[Source]:
    """Yield a dataset as it is, and a table as a Parquet file that is gone afterwards."""
    if not is_table(uri):
        yield Source(uri=uri, conn_id=conn_id, format=format)
        return
    with tempfile.TemporaryDirectory(prefix="airflow-approvals-") as folder:
        path = Path(folder) / "table.parquet"
        hook, table = open_database(uri, must_exist=True)
        try:
            stored = stage_table(hook, table, path)
        finally:
            _close(hook)
        yield Source(uri=str(path), conn_id=None, format=None, stored=stored)


def mask_staged(
    source: Source,
    destination: str,
    rules: MaskingRules,
    keys: KeyRing,
    finder: Finder,
    *,
    overwrite: bool = False,
    told: Callable[[VerifyReport], None] | None = None,
) -> MaskedSource:
    """Mask a dataset or table into a file, folder or table, where nothing appears unverified.

    `told` is given the report of the verification before `VerificationError` ends all. With `overwrite`, a
    file that is there is replaced, and so are a table's rows; without, the file is refused, the rows stay.
    """
    if not is_table(destination):
        return _masked(source, destination, rules, keys, finder, overwrite=overwrite, told=told)
    hook, table = open_database(destination, must_exist=False)
    try:
        with tempfile.TemporaryDirectory(prefix="airflow-approvals-") as folder:
            suffix = "".join(Path(source.uri).suffixes) or "-masked"
            path = str(Path(folder) / f"masked{suffix}")
            made = _masked(source, path, rules, keys, finder, overwrite=False, told=told)
            _write(source, path, hook, table, rules, overwrite=overwrite)
    finally:
        _close(hook)
    return made


def open_database(uri: str, *, must_exist: bool) -> tuple[Any, str]:
    """Return a hook or connection, and the table; nothing is read yet."""
    if uri.startswith("sql://"):
        conn_id, _, table = uri.removeprefix("sql://").partition("/")
        if not conn_id or not table:
            raise InvalidRequestError(f"{uri}: expected sql://CONN_ID/table")
        from airflow.sdk import BaseHook

        return BaseHook.get_hook(conn_id), table
    address, _, table = uri.partition("#")
    if not table:
        raise InvalidRequestError(f"{uri.partition('?')[0]}: names no table; expected it behind a #")
    if uri.startswith("sqlite://"):
        return _sqlite(address, must_exist=must_exist), table
    return _postgres(address), table


def _sqlite(address: str, *, must_exist: bool) -> Any:
    import sqlite3

    path = Path(address.removeprefix("sqlite://"))
    if not path.is_absolute():
        raise InvalidRequestError(f"{address}: expected sqlite:///folder/file.db#table, from the root")
    try:
        # A database that is only to be read must not come into being by that.
        return sqlite3.connect(f"{path.as_uri()}?mode={'rw' if must_exist else 'rwc'}", uri=True)
    except sqlite3.Error as error:
        raise SourceMissingError(f"{address}: cannot be opened; check the path and the rights") from error


def _postgres(address: str) -> Any:
    try:
        import psycopg2
    except ImportError as error:
        raise MissingExtraError("PostgreSQL needs a driver: install airflow-approvals[postgres]") from error
    try:
        return psycopg2.connect(address)
    except psycopg2.Error:
        pass  # its message repeats the address, which may hold a password
    raise ConfigurationError(
        "the PostgreSQL server cannot be reached, or refuses this user; expected postgresql://user@host/database"
        "#table, and the password in PGPASSWORD or ~/.pgpass"
    )


def _masked(
    source: Source,
    destination: str,
    rules: MaskingRules,
    keys: KeyRing,
    finder: Finder,
    *,
    overwrite: bool,
    told: Callable[[VerifyReport], None] | None,
) -> MaskedSource:
    reports: list[VerifyReport] = []

    def check(waiting: WaitingDataset, known: ValueIndex | None) -> None:
        place = locate(source.uri, source.conn_id)
        found = verify_located(place, waiting, rules, finder, keys=keys, known=known, format=source.format)
        if told is not None:
            told(found)
        found.check()
        reports.append(found)

    made = mask_dataset(
        source.uri,
        destination,
        rules,
        keys,
        finder,
        source_conn_id=source.conn_id,
        format=source.format,
        overwrite=overwrite,
        check=check,
    )
    (verified,) = reports
    return MaskedSource(masking=made.report, verified=verified)


def _write(source: Source, path: str, hook: Any, table: str, rules: MaskingRules, *, overwrite: bool) -> None:
    from airflow_approvals.staging.snapshot import snapshot

    masked = snapshot(path, format=source.format)
    kind = _kind_of(hook)
    stored = {column.name: column for column in source.stored.columns} if source.stored else {}
    same = source.stored is not None and source.stored.kind == kind
    key = source.stored.key if source.stored else ()
    # Masked keys may be no keys any more; those that are as they were keep the rows in order.
    has_key = all(rules.by_column[one.name].treatment is Treatment.LEAVE for one in key)
    create = [
        replace(
            _new_column(
                column, stored.get(column.name) if same else None, rules.by_column[column.name], kind
            ),
            key=stored[column.name].key if has_key and stored else 0,
        )
        for column in masked.columns
    ]
    kept = {one.name for one in create if same and one.declared == stored[one.name].declared}
    write_table(
        path,
        expected=masked,
        hook=hook,
        table=table,
        mode="replace" if overwrite else "append",
        create=create,
        as_text=[name for name in kept if stored[name].as_text],
    )


def _new_column(column: Column, stored: StoredColumn | None, rule: ColumnRule, kind: str) -> NewColumn:
    family = family_of(column.type)
    masked_text = family == "string" and rule.treatment not in (Treatment.LEAVE, Treatment.LEAVES)
    if stored is not None and not masked_text and not rule.becomes:
        declared = stored.declared
    elif family == "decimal" and kind == "postgresql":
        declared = column.type.replace("decimal128", "numeric").replace("decimal256", "numeric")
    else:
        declared = DECLARED[kind].get(family, TEXT[kind])
    return NewColumn(name=column.name, declared=declared, required=not column.nullable)


def _kind_of(hook: Any) -> str:
    names: Sequence[type] = type(hook).__mro__
    return (
        "sqlite"
        if any("sqlite" in f"{cls.__module__}.{cls.__name__}".lower() for cls in names)
        else "postgresql"
    )


def _close(hook: Any) -> None:
    if not hasattr(hook, "get_conn"):
        hook.close()
