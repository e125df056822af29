# ruff: noqa: E501, S608  # tables read best with one case a line; all statements are made here
"""Tables as source and destination: types, nulls and order are kept; all rows arrive, or none."""

from __future__ import annotations

import datetime
import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet  # noqa: TID253

from airflow_approvals.core.errors import (
    ApprovalsError,
    DestinationError,
    InvalidRequestError,
    SchemaMismatchError,
    SourceEmptyError,
    SourceMissingError,
    SourceUnreadableError,
    VerificationError,
)
from airflow_approvals.pii.masking.operators import Pseudonym, ShiftDate
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.sql_tables import mask_staged, open_database, staged
from airflow_approvals.pii.verify_datasets import verify_masked
from airflow_approvals.pii.verify_report import VerifyReport
from airflow_approvals.staging.sql_source import open_table, stage_table
from tests.pii.mask_samples import KEYS, PatternFinder
from tests.staging.databases import Connect, is_sqlite, libpq_url, run

MAKE = {
    "sqlite": (
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL, note TEXT, born DATE, "
        "score REAL, paid DECIMAL(10,2), photo BLOB, payload JSON)"
    ),
    "postgresql": (
        "CREATE TABLE people (id bigint PRIMARY KEY, name varchar(20) NOT NULL, note text, born date, "
        "score float8, paid numeric(10,2), photo bytea, payload jsonb)"
    ),
}
COLUMNS = ("id", "name", "note", "born", "score", "paid", "photo", "payload")
TYPES = {
    "sqlite": ("int64", "string", "string", "string", "double", "double", "binary", "string"),
    "postgresql": (
        "int64", "string", "string", "date32[day]", "double", "decimal128(10, 2)", "binary", "string",
    ),
}  # fmt: skip


def rules(*, born: bool) -> MaskingRules:
    """Return rules for `people`; dates are moved where they are dates, and left alone where they are text."""
    pseudonym = Pseudonym(domain="customers")
    stay = {
        name: ColumnRule(column=name, treatment=Treatment.LEAVE, leave_entities=("*",)) for name in COLUMNS
    }
    changed = {
        "name": ColumnRule(column="name", treatment=Treatment.CELL, entity_type="PERSON", operator=pseudonym),
        "note": ColumnRule(column="note", treatment=Treatment.TEXT),
        "payload": ColumnRule(column="payload", treatment=Treatment.LEAVES),
    }
    if born:
        shift = ShiftDate(domain="customers")
        changed["born"] = ColumnRule(
            column="born", treatment=Treatment.CELL, entity_type="DATE_TIME", operator=shift
        )
    return MaskingRules(columns=tuple({**stay, **changed}.values()), subject_column="id")


def fill(connect: Connect, rows: int = 9_000) -> str:
    """Make the table with more rows than one batch; return whose database it is."""
    kind = "sqlite" if is_sqlite(connect) else "postgresql"
    run(connect, MAKE[kind])
    connection = connect()
    mark = "?" if kind == "sqlite" else "%s"
    connection.cursor().executemany(
        f"INSERT INTO people VALUES ({', '.join([mark] * 8)})", [person(number) for number in range(rows)]
    )
    connection.commit()
    connection.close()
    return kind


def person(number: int) -> tuple[Any, ...]:
    gone = number % 3 == 0
    return (
        number,
        f"Mr. Canary{chr(65 + number % 26)}{number:05d}",
        None if gone else f'line "one", {number}\nto x{number}@canary.org\ttab \\N ü',
        None if gone else f"19{number % 90 + 10}-02-03",
        None if gone else number / 7,
        None if gone else f"{number}.25",
        None if gone else bytes([number % 256, 255]),
        None if gone else f'{{"to": "y{number}@canary.org", "n": {number}}}',
    )


def uri_of(connect: Connect, table: str) -> str:
    connection = connect()
    try:
        if isinstance(connection, sqlite3.Connection):
            (path,) = connection.execute("SELECT file FROM pragma_database_list").fetchone()
            return f"sqlite://{path}#{table}"
        with connection.cursor() as cursor:
            cursor.execute("SHOW search_path")
            (schema,) = cursor.fetchone()
        return f"{libpq_url()}#{schema}.{table}"
    finally:
        connection.close()


def test_a_table_is_staged_with_its_types_nulls_and_order(connect: Connect, tmp_path: Path) -> None:
    kind = fill(connect)
    connection = connect()
    stored = stage_table(connection, "people", tmp_path / "people.parquet")
    connection.close()
    table = parquet.read_table(tmp_path / "people.parquet")
    assert stored.kind == kind
    assert tuple(map(str, table.schema.types)) == TYPES[kind]
    assert table.schema.field("name").nullable is False
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == list(range(9_000))
    assert [row["note"] for row in rows] == [person(number)[2] for number in range(9_000)]
    assert [row["score"] for row in rows] == [person(number)[4] for number in range(9_000)]
    assert [row["photo"] for row in rows] == [person(number)[6] for number in range(9_000)]
    if kind == "postgresql":
        assert rows[1]["born"] == datetime.date(1911, 2, 3)
        assert rows[1]["paid"] == Decimal("1.25")


def test_a_table_is_masked_into_another_one_with_the_same_types(connect: Connect) -> None:
    kind = fill(connect, rows=500)
    found = rules(born=kind == "postgresql")
    with staged(uri_of(connect, "people")) as source:
        made = mask_staged(source, uri_of(connect, "masked"), found, KEYS, PatternFinder())
    assert made.verified.verified
    before, after = (run(connect, f"SELECT * FROM {name} ORDER BY id") for name in ("people", "masked"))
    assert len(after) == 500
    for old, new in zip(before, after, strict=True):
        assert [value is None for value in new] == [value is None for value in old]
        kept = (0, 4, 5, 6) if kind == "postgresql" else (0, 3, 4, 5, 6)
        assert [(type(new[place]), new[place]) for place in kept] == [
            (type(old[place]), old[place]) for place in kept
        ]
    assert "canary" not in str(after).lower()
    with staged(uri_of(connect, "people")) as source, staged(uri_of(connect, "masked")) as masked:
        verify_masked(source.uri, masked.uri, found, PatternFinder(), keys=KEYS).check()
    if kind == "postgresql":
        declared = run(
            connect,
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
            "WHERE attrelid = to_regclass('masked') AND attnum > 0 ORDER BY attnum",
        )
        assert declared[1] == ("name", "text", True)  # a pseudonym has no room in varchar(20)
        assert [kind for _, kind, _ in declared[3:]] == [
            "date", "double precision", "numeric(10,2)", "bytea", "jsonb",
        ]  # fmt: skip


def test_rows_are_never_doubled_and_with_overwrite_replaced(connect: Connect) -> None:
    kind = fill(connect, rows=20)
    found = rules(born=kind == "postgresql")

    def mask(*, overwrite: bool) -> None:
        with staged(uri_of(connect, "people")) as source:
            mask_staged(source, uri_of(connect, "masked"), found, KEYS, PatternFinder(), overwrite=overwrite)

    mask(overwrite=False)
    with pytest.raises(DestinationError, match="as it was before"):
        mask(overwrite=False)  # the masked table has the primary key of its source
    assert run(connect, "SELECT count(*) FROM masked") == [(20,)]
    run(connect, "DELETE FROM masked WHERE id < 5")
    mask(overwrite=True)
    assert run(connect, "SELECT count(*) FROM masked") == [(20,)]


@pytest.mark.parametrize("kind", ["table", "file"])
def test_nothing_is_written_where_masking_does_not_hold(connect: Connect, tmp_path: Path, kind: str) -> None:
    fill(connect, rows=20)
    run(connect, "UPDATE people SET note = 'to y4@canary.org' WHERE id = 4")  # as in its payload
    left_alone = ColumnRule(column="payload", treatment=Treatment.LEAVE)
    columns = (left_alone if one.column == "payload" else one for one in rules(born=False).columns)
    leaky = MaskingRules(columns=tuple(columns), subject_column="id")
    out = tmp_path / "out.parquet"
    out.write_bytes(b"as it was before")
    destination = str(out) if kind == "file" else uri_of(connect, "masked")
    told: list[VerifyReport] = []
    with (
        staged(uri_of(connect, "people")) as source,
        pytest.raises(VerificationError, match=r"column 'payload': 1 x EMAIL_ADDRESS \(survives\), rows 4"),
    ):
        mask_staged(source, destination, leaky, KEYS, PatternFinder(), overwrite=True, told=told.append)
    assert [(report.verified, report.columns) for report in told] == [(False, ("payload",))]
    assert out.read_bytes() == b"as it was before"
    assert list(tmp_path.glob(".airflow-approvals*")) == []
    with pytest.raises(Exception, match="masked"):
        run(connect, "SELECT * FROM masked")


def test_a_destination_that_refuses_stays_as_it_was(connect: Connect) -> None:
    kind = fill(connect, rows=20)
    text = "text" if kind == "postgresql" else "TEXT"
    columns = MAKE[kind].partition("(")[2].replace("VARCHAR(20)", text).replace("varchar(20)", text)
    run(connect, f"CREATE TABLE masked ({columns.removesuffix(')')}, CHECK (id < 10))")
    found = rules(born=kind == "postgresql")
    with (
        staged(uri_of(connect, "people")) as source,
        pytest.raises(DestinationError, match="as it was before"),
    ):
        mask_staged(source, uri_of(connect, "masked"), found, KEYS, PatternFinder())
    assert run(connect, "SELECT count(*) FROM masked") == [(0,)]


def test_a_table_is_masked_into_a_file(connect: Connect, tmp_path: Path) -> None:
    kind = fill(connect, rows=20)
    found = rules(born=kind == "postgresql")
    with staged(uri_of(connect, "people")) as source:
        made = mask_staged(source, str(tmp_path / "out.parquet"), found, KEYS, PatternFinder())
    assert made.verified.dataset_sha256 == made.masking.sha256
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 20


def test_a_reading_sees_one_moment_and_leaves_the_connection_as_it_was(connect: Connect) -> None:
    fill(connect, rows=5_000)
    connection = connect()
    with open_table(connection, "people") as reader:
        batches = iter(reader.batches)
        rows = next(batches).num_rows
        if not is_sqlite(connect):  # SQLite's writer would wait for this reader
            run(connect, "DELETE FROM people")
        rows += sum(batch.num_rows for batch in batches)
    assert rows == 5_000
    if isinstance(connection, sqlite3.Connection):
        assert connection.text_factory is str
        assert not connection.in_transaction
    connection.close()


def test_an_empty_or_missing_table_is_named(connect: Connect) -> None:
    fill(connect, rows=0)
    with staged(uri_of(connect, "people")) as source, pytest.raises(SourceEmptyError):
        mask_staged(source, uri_of(connect, "masked"), rules(born=False), KEYS, PatternFinder())
    with pytest.raises(SourceMissingError, match="no such table"), staged(uri_of(connect, "nobody")):
        pytest.fail("a table that is not there was opened")


SQLITE_ODD: dict[str, tuple[str, str, type[ApprovalsError], str]] = {
    "several kinds in a column": ("CREATE TABLE t (a)", "INSERT INTO t VALUES (1), ('canary'), (2)", SchemaMismatchError, "column 'a' holds integer and text .row 1 is the first with text"),
    "bytes among texts": ("CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('x'), (x'ff')", SchemaMismatchError, "column 'a' holds blob and text"),
    "text that is not UTF-8": ("CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('x'), (CAST(x'63616e617279ff' AS TEXT))", SourceUnreadableError, "row 1, column 'a' holds bytes that are not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "insert", "error", "words"), SQLITE_ODD.values(), ids=SQLITE_ODD.keys())
def test_what_sqlite_lets_in_and_arrow_does_not_is_named_by_row_and_column(
    tmp_path: Path, make: str, insert: str, error: type[ApprovalsError], words: str
) -> None:
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute(make)
    connection.execute(insert)
    connection.commit()
    with pytest.raises(error, match=words) as refusal:
        stage_table(connection, "t", tmp_path / "t.parquet")
    connection.close()
    assert "canary" not in str(refusal.value)
    assert not (tmp_path / "t.parquet").exists()


POSTGRES_ODD: dict[str, tuple[str, str]] = {
    "an endless date": ("date", "'2020-01-01'), ('infinity'"),
    "not a number": ("numeric(10,2)", "1), ('NaN'"),
    "a year before Christ": ("timestamp", "'2020-01-01'), ('0044-03-15 12:00 BC'"),
    "midnight at the end": ("time", "'12:00'), ('24:00'"),
}


@pytest.mark.services
@pytest.mark.parametrize(("kind", "rows"), POSTGRES_ODD.values(), ids=POSTGRES_ODD.keys())
@pytest.mark.parametrize("connect", ["psycopg2"], indirect=True)
def test_what_postgres_has_and_arrow_has_not_is_named_by_row_and_column(
    connect: Connect, tmp_path: Path, kind: str, rows: str
) -> None:
    run(connect, f"CREATE TABLE t (a {kind})")
    run(connect, f"INSERT INTO t VALUES ({rows})")
    connection = connect()
    with pytest.raises(SchemaMismatchError, match="row 1, column 'a' holds what"):
        stage_table(connection, "t", tmp_path / "t.parquet")
    connection.close()


@pytest.mark.services
@pytest.mark.parametrize("connect", ["psycopg2", "psycopg"], indirect=True)
def test_every_type_of_postgres_comes_back_as_it_was(connect: Connect) -> None:
    run(connect, "CREATE TYPE mood AS ENUM ('ok', 'sad')")
    run(
        connect,
        "CREATE TABLE t (id int2, flag bool, r float4, free numeric, at timestamptz, clock time, uid uuid, "
        "tags text[], span interval, net inet, m mood, j json, lone text)",
    )
    run(
        connect,
        "INSERT INTO t VALUES (1, true, 1.1, 1e40, '2020-01-01 12:00:00.123456+02', '12:30:01.5', "
        "'123e4567-e89b-12d3-a456-426614174000', ARRAY['a,\"b', NULL], '1 day 2 hours', '10.0.0.1/8', 'ok', "
        "'{\"a\": [1.50]}', ''), (NULL, NULL, 'NaN', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    names = ("id", "flag", "r", "free", "at", "clock", "uid", "tags", "span", "net", "m", "j", "lone")
    leave = MaskingRules(
        columns=tuple(
            ColumnRule(column=name, treatment=Treatment.LEAVE, leave_entities=("*",)) for name in names
        )
    )
    with staged(uri_of(connect, "t")) as source:
        mask_staged(source, uri_of(connect, "u"), leave, KEYS, PatternFinder())
    same = "SELECT t::text, row_number() OVER () FROM {} t"
    assert run(connect, same.format("u")) == run(connect, same.format("t"))


ADDRESSES: dict[str, tuple[str, type[ApprovalsError]]] = {
    "no table": ("sqlite:///tmp/a.db", InvalidRequestError),
    "a path that is not from the root": ("sqlite://a.db#t", InvalidRequestError),
    "no database there": ("sqlite:///nowhere/a.db#t", SourceMissingError),
    "a connection without a table": ("sql://warehouse", InvalidRequestError),
}


@pytest.mark.parametrize(("uri", "error"), ADDRESSES.values(), ids=ADDRESSES.keys())
def test_an_address_that_names_no_table_is_refused(uri: str, error: type[ApprovalsError]) -> None:
    with pytest.raises(error):
        open_database(uri, must_exist=True)


def test_a_table_behind_an_airflow_connection_is_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("CREATE TABLE t (mail TEXT)")
    connection.execute("INSERT INTO t VALUES ('x@canary.org')")
    connection.commit()
    connection.close()
    words = {"conn_type": "sqlite", "host": str(tmp_path / "a.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(words))
    with staged("sql://warehouse/t") as source:
        assert parquet.read_table(source.uri).to_pylist() == [{"mail": "x@canary.org"}]
    assert not Path(source.uri).exists()
