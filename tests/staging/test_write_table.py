# ruff: noqa: E501  # tables read best with one case a line
"""Rows reach a table only if they are the approved ones, all of them, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import datetime
import decimal
import json
import sqlite3
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_approvals.core.errors import (
    ApprovalsError,
    ConfigurationError,
    DestinationError,
    DigestMismatchError,
    InvalidRequestError,
    SchemaMismatchError,
    SourceUnreadableError,
)
from airflow_approvals.staging.snapshot import snapshot
from airflow_approvals.staging.sql import check_hook, write_table
from airflow_approvals.staging.sql_tables import split_table_name
from tests.staging.databases import Connect, is_sqlite, run
from tests.staging.samples import CANARY, ROWS, SUFFIXES, write_dataset, write_parts

ODD = 'odd "name" %s; --'  # a column name that every kind of quoting must survive


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_arrives_whole_with_nulls_and_empty_lines(
    connect: Connect, tmp_path: Path, suffix: str
) -> None:
    source = write_dataset(tmp_path / f"a{suffix}")
    approved = snapshot(str(source))
    run(connect, "CREATE TABLE t (id bigint NOT NULL, note text, added int DEFAULT 5)")

    written = write_table(str(source), expected=approved, hook=connect(), table="t")

    assert (written.rows, written.sha256) == (ROWS, approved.sha256)
    rows = run(connect, "SELECT id, note, added FROM t ORDER BY id")
    assert [row[0] for row in rows] == list(range(ROWS))
    assert {row[2] for row in rows} == {5}
    assert rows[7][1] is None
    assert rows[8][1] == f'line one, 8\nline "two" {CANARY} ü'


def test_a_folder_of_parts_is_one_transaction(connect: Connect, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", ".parquet")
    approved = snapshot(str(folder))
    run(connect, "CREATE TABLE t (id bigint, note text)")

    write_table(str(folder), expected=approved, hook=connect(), table="t")
    assert run(connect, "SELECT count(*), count(DISTINCT id) FROM t") == [(ROWS, ROWS)]

    write_dataset(folder / "day=1" / "c.parquet", range(4))
    with pytest.raises(DigestMismatchError):
        write_table(str(folder), expected=approved, hook=connect(), table="t", mode="replace")
    assert run(connect, "SELECT count(*), count(DISTINCT id) FROM t") == [(ROWS, ROWS)]


def test_types_are_kept(connect: Connect, tmp_path: Path) -> None:
    when = datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=datetime.UTC)
    row = {
        "big": pa.array([2**53 + 1, None], pa.int64()),
        "price": pa.array([decimal.Decimal("12345678901234567.89"), None], pa.decimal128(19, 2)),
        "ratio": pa.array([0.1 + 0.2, None], pa.float64()),
        "flag": pa.array([True, None], pa.bool_()),
        "day": pa.array([when.date(), None], pa.date32()),
        "at": pa.array([when, None], pa.timestamp("ns", tz="UTC")),
        "raw": pa.array([b"\x00\xff,\"\n", None], pa.binary()),
        "tags": pa.array([["ü", None, 'a"b'], None], pa.list_(pa.string())),
        "word": pa.array(["", None], pa.string()).dictionary_encode(),
        ODD: pa.array(["\\N", None], pa.large_string()),
    }  # fmt: skip
    parquet.write_table(pa.table(row), tmp_path / "a.parquet")
    approved = snapshot(str(tmp_path / "a.parquet"))
    lite = is_sqlite(connect)
    kinds = {
        "big": "bigint", "price": "text" if lite else "numeric(19, 2)", "ratio": "double precision",
        "flag": "boolean", "day": "date", "at": "timestamp" if lite else "timestamptz",
        "raw": "blob" if lite else "bytea", "tags": "text" if lite else "jsonb", "word": "text", ODD: "text",
    }  # fmt: skip
    names = ", ".join('"' + name.replace('"', '""') + f'" {kind}' for name, kind in kinds.items())
    run(connect, f'CREATE TABLE "T 1" ({names})')

    write_table(approved.uri, expected=approved, hook=connect(), table="T 1")

    found, nulls = sorted(run(connect, 'SELECT * FROM "T 1"'), key=lambda row: row[0] is None)
    assert set(nulls) == {None}
    big, price, ratio, flag, day, at, raw, tags, word, odd = found
    assert (big, ratio, bytes(raw), word, odd) == (2**53 + 1, 0.1 + 0.2, b'\x00\xff,"\n', "", "\\N")
    assert decimal.Decimal(price) == decimal.Decimal("12345678901234567.89")
    assert bool(flag) is True
    assert str(day) == "2024-02-29"
    assert datetime.datetime.fromisoformat(str(at)) == when
    assert (json.loads(tags) if lite else tags) == ["ü", None, 'a"b']


def test_replace_takes_the_place_of_what_was_there_and_append_adds(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    approved = snapshot(str(tmp_path / "a.csv"))
    run(connect, "CREATE TABLE t (x int)")
    run(connect, "INSERT INTO t VALUES (7)")

    write_table(approved.uri, expected=approved, hook=connect(), table="t")
    assert run(connect, "SELECT x FROM t ORDER BY x") == [(1,), (2,), (7,)]
    write_table(approved.uri, expected=approved, hook=connect(), table="t", mode="replace")
    assert run(connect, "SELECT x FROM t ORDER BY x") == [(1,), (2,)]


def test_columns_are_mapped_by_name_and_null_is_not_empty(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('p,q\n"",\n')
    approved = snapshot(str(tmp_path / "a.csv"))
    run(connect, 'CREATE TABLE t (q text, "Other" text)')

    write_table(approved.uri, expected=approved, hook=connect(), table="t", columns={"p": "Other"})

    assert run(connect, 'SELECT q, "Other" FROM t') == [(None, "")]


def tampered_late(path: Path) -> None:
    path.write_bytes(path.read_bytes() + f'9999,"{CANARY}"\n'.encode())


TAMPERINGS: dict[str, tuple[Callable[[Path], object], type[ApprovalsError]]] = {
    "a row more": (tampered_late, DigestMismatchError),
    "a value changed": (lambda path: path.write_bytes(path.read_bytes().replace(b"one", b"0ne", 1)), DigestMismatchError),
    "a row less": (lambda path: write_dataset(path, range(ROWS - 1)), DigestMismatchError),
    "broken": (lambda path: path.write_bytes(path.read_bytes() + b"1,2,3\n"), SourceUnreadableError),
}  # fmt: skip


@pytest.mark.parametrize(("tamper", "error"), TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_rows_that_were_not_approved_never_arrive(
    connect: Connect, tmp_path: Path, tamper: Callable[[Path], object], error: type[ApprovalsError]
) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(source))
    run(connect, "CREATE TABLE t (id bigint, note text)")
    run(connect, "INSERT INTO t VALUES (1, 'before')")
    tamper(source)

    connection = connect()
    with pytest.raises(error) as caught:
        write_table(str(source), expected=approved, hook=connection, table="t", mode="replace")

    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert run(connect, "SELECT * FROM t") == [(1, "before")]
    source = write_dataset(tmp_path / "a.csv")  # the connection is as usable as before
    write_table(str(source), expected=approved, hook=connection, table="t")
    assert run(connect, "SELECT count(*) FROM t") == [(ROWS + 1,)]


def test_a_wrong_count_of_rows_is_rolled_back(connect: Connect, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = replace(snapshot(str(source)), rows=ROWS + 1)
    run(connect, "CREATE TABLE t (id bigint, note text)")

    with pytest.raises(DigestMismatchError, match=f"{ROWS} were staged"):
        write_table(str(source), expected=approved, hook=connect(), table="t")
    assert run(connect, "SELECT count(*) FROM t") == [(0,)]


TARGETS = {
    "no such table": (None, DestinationError, "no such table"),
    "column missing": ("id bigint", SchemaMismatchError, "no column for column number 2"),
    "column must have a value": (
        "id bigint, note text, x int NOT NULL",
        SchemaMismatchError,
        "'x' must have",
    ),
    "other type": ("id bigint, note double precision", SchemaMismatchError, "'note' is"),
    "number into text": ("id text, note text", SchemaMismatchError, "'id' is"),
    "computed": ("id bigint, note text GENERATED ALWAYS AS ('x') STORED", SchemaMismatchError, "computed"),
    "constraint": ("id bigint CHECK (id < 5), note text", DestinationError, "the database refused"),
    "null refused": ("id bigint, note text NOT NULL", DestinationError, "the database refused"),
}


@pytest.mark.parametrize(("columns", "error", "words"), TARGETS.values(), ids=TARGETS.keys())
def test_a_table_that_cannot_take_the_rows_is_left_as_it_was(
    connect: Connect, tmp_path: Path, columns: str | None, error: type[ApprovalsError], words: str
) -> None:
    source = write_dataset(tmp_path / "a.parquet")
    approved = snapshot(str(source))
    if columns:
        run(connect, f"CREATE TABLE t ({columns})")

    with pytest.raises(error, match=words) as caught:
        write_table(str(source), expected=approved, hook=connect(), table="t")

    assert CANARY not in "".join(traceback.format_exception(caught.value))
    if columns:
        assert run(connect, "SELECT count(*) FROM t") == [(0,)]


def test_text_that_is_no_number_is_refused_without_being_shown(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"x\n1\n{CANARY}\n")
    approved = snapshot(str(tmp_path / "a.csv"))
    run(connect, "CREATE TABLE t (x int)")

    with pytest.raises(SchemaMismatchError) as caught:
        write_table(approved.uri, expected=approved, hook=connect(), table="t")

    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert run(connect, "SELECT count(*) FROM t") == [(0,)]


def test_finer_than_a_microsecond_is_refused(connect: Connect, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": pa.array([1], pa.timestamp("ns"))}), tmp_path / "a.parquet")
    approved = snapshot(str(tmp_path / "a.parquet"))
    run(connect, "CREATE TABLE t (x timestamp)")

    with pytest.raises(SchemaMismatchError, match="microsecond"):
        write_table(approved.uri, expected=approved, hook=connect(), table="t")


def test_a_connection_within_a_transaction_is_refused(connect: Connect, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.csv")
    run(connect, "CREATE TABLE t (id bigint, note text)")
    connection = connect()
    connection.cursor().execute("INSERT INTO t VALUES (1, 'x')")

    with pytest.raises(InvalidRequestError, match="in a transaction"):
        write_table(str(source), expected=snapshot(str(source)), hook=connection, table="t")
    connection.rollback()


def test_a_trigger_that_drops_rows_is_found(connect: Connect, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.csv")
    run(connect, "CREATE TABLE t (id bigint, note text)")
    if is_sqlite(connect):
        drop = "BEGIN SELECT raise(ignore); END"
    else:
        run(connect, "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        drop = "EXECUTE FUNCTION drop_it()"
    when = "WHEN (new.id = 5)" if is_sqlite(connect) else "FOR EACH ROW WHEN (new.id = 5)"
    run(connect, f"CREATE TRIGGER dropping BEFORE INSERT ON t {when} {drop}")

    with pytest.raises(DigestMismatchError, match=f"{ROWS - 1} arrived"):
        write_table(str(source), expected=snapshot(str(source)), hook=connect(), table="t")
    assert run(connect, "SELECT count(*) FROM t") == [(0,)]


HOOKS = {
    "PostgreSQL": ("airflow.providers.postgres.hooks.postgres", True),
    "SQLite": ("airflow.providers.sqlite.hooks.sqlite", True),
    "nobody's provider": ("our.own.hooks", True),
    "MySQL": ("airflow.providers.mysql.hooks.mysql", False),
    "SQL Server": ("airflow.providers.microsoft.mssql.hooks.mssql", False),
    "no database at all": ("airflow.providers.http.hooks.http", False),
}


@pytest.mark.parametrize("own", [False, True], ids=["stock", "made of it"])
@pytest.mark.parametrize(("module", "fits"), HOOKS.values(), ids=HOOKS.keys())
def test_another_database_is_known_by_its_hook_alone(module: str, fits: bool, own: bool) -> None:
    common = type("DbApiHook", (), {"__module__": "airflow.providers.common.sql.hooks.sql"})
    stock = type("StockHook", (common,), {"__module__": module})
    hook = type("OwnHook", (stock,), {"__module__": "our.own"})() if own else stock()
    if fits:
        check_hook(hook)
        return
    with pytest.raises(ConfigurationError, match=r"expected PostgreSQL .* name a connection of one of them"):
        check_hook(hook)


def test_other_databases_modes_and_mappings_are_refused(connect: Connect, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(source))

    with pytest.raises(ConfigurationError, match="expected PostgreSQL"):
        write_table(str(source), expected=approved, hook=object(), table="t")
    with pytest.raises(InvalidRequestError, match="append or replace"):
        write_table(str(source), expected=approved, hook=connect(), table="t", mode="upsert")  # type: ignore[arg-type]
    with pytest.raises(SchemaMismatchError, match="no columns"):
        write_table(str(source), expected=approved, hook=connect(), table="t", columns={"nope": "x"})
    with pytest.raises(SchemaMismatchError, match="same name"):
        write_table(str(source), expected=approved, hook=connect(), table="t", columns={"id": "note"})


TABLE_NAMES = {
    "t": ("t",),
    "s.t": ("s", "t"),
    '"a.b".t': ("a.b", "t"),
    's."t""; DROP TABLE x"': ("s", 't"; DROP TABLE x'),
    "": None,
    "a.b.c": None,
    "a.": None,
    '"open': None,
}


@pytest.mark.parametrize(("text", "parts"), TABLE_NAMES.items())
def test_table_names_are_split_exactly(text: str, parts: tuple[str, ...] | None) -> None:
    if parts is None:
        with pytest.raises(InvalidRequestError):
            split_table_name(text)
    else:
        assert split_table_name(text) == parts


def test_sqlite_refuses_what_it_would_change(tmp_path: Path) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE t (x)")
        for array in (pa.array([2**64 - 1], pa.uint64()), pa.array([float("nan")])):
            parquet.write_table(pa.table({"x": array}), tmp_path / "a.parquet")
            approved = snapshot(str(tmp_path / "a.parquet"))
            with pytest.raises(SchemaMismatchError):
                write_table(approved.uri, expected=approved, hook=connection, table="t")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    connection.close()


@pytest.mark.airflow
def test_a_hook_of_airflow_is_taken_as_it_is(tmp_path: Path) -> None:
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.providers.sqlite.hooks.sqlite import SqliteHook

    class Hook(SqliteHook):
        def get_conn(self) -> sqlite3.Connection:
            return sqlite3.connect(tmp_path / "target.db")

    with sqlite3.connect(tmp_path / "target.db") as connection:
        connection.execute("CREATE TABLE t (id bigint, note text)")
    connection.close()
    source = write_dataset(tmp_path / "a.jsonl.gz")
    hook: DbApiHook = Hook()  # type: ignore[no-untyped-call]  # Airflow's own

    assert write_table(str(source), expected=snapshot(str(source)), hook=hook, table="main.t").rows == ROWS
