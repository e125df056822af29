"""A write for a request happens once, whatever dies and whenever, and the next try can tell."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_approvals.core.errors import (
    ApprovalsError,
    DestinationError,
    DigestMismatchError,
    InvalidRequestError,
    LostWriteError,
    ReceiptUsedError,
)
from airflow_approvals.core.model import Snapshot
from airflow_approvals.staging import sql
from airflow_approvals.staging.snapshot import snapshot
from airflow_approvals.staging.sql import Written, settle_write, write_table
from airflow_approvals.staging.sql_postgres import PostgresLoader
from airflow_approvals.staging.sql_sqlite import SqliteLoader
from airflow_approvals.staging.sql_tables import Loader, Marker, Mode
from tests.staging.databases import Connect, is_sqlite, libpq_url, run

WRITER = Path(__file__).with_name("killed_table_writer.py")
MODES: tuple[Mode, ...] = ("append", "replace")


@dataclass
class Target:
    """A table `t` of one column with one row, and three approved rows for it."""

    connect: Connect
    approved: Snapshot

    def write(self, request_id: str | None, mode: Mode = "append") -> Written:
        return write_table(
            self.approved.uri,
            expected=self.approved,
            hook=self.connect(),
            table="t",
            mode=mode,
            request_id=request_id,
        )

    def settle(self, request_id: str) -> Written | None:
        return settle_write(hook=self.connect(), table="t", request_id=request_id)

    @property
    def rows(self) -> list[int]:
        return [row[0] for row in run(self.connect, "SELECT x FROM t ORDER BY x")]

    @property
    def written(self) -> Written:
        return Written(rows=3, sha256=self.approved.sha256)


@pytest.fixture
def target(connect: Connect, tmp_path: Path) -> Target:
    (tmp_path / "a.csv").write_text("x\n1\n2\n3\n")
    run(connect, "CREATE TABLE t (x int)")
    run(connect, "INSERT INTO t VALUES (0)")
    return Target(connect, snapshot(str(tmp_path / "a.csv")))


def address_of(connect: Connect) -> list[str]:
    """Return driver, place and schema of a database, for another process."""
    if is_sqlite(connect):
        return ["sqlite", run(connect, "SELECT file FROM pragma_database_list")[0][0], ""]
    return [type(connect()).__module__.partition(".")[0], libpq_url(), schema_of(connect)]


def schema_of(connect: Connect) -> str:
    return str(run(connect, "SELECT current_schema()")[0][0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("moment", ["before COMMIT", "after COMMIT"])
def test_a_killed_writer_has_written_once_or_never_and_the_next_try_knows(
    target: Target, mode: Mode, moment: str
) -> None:
    killed = subprocess.run(
        [sys.executable, str(WRITER), target.approved.uri, mode, moment, *address_of(target.connect)],
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    arrived = {"append": [0, 1, 2, 3], "replace": [1, 2, 3]}[mode]
    if moment == "after COMMIT":
        assert target.settle("r1") == target.written
        assert target.rows == arrived
    else:
        assert target.settle("r1") is None
        assert target.rows == [0]
        target.write("r2", mode)  # what the next approval is for
        assert target.rows == arrived
        assert target.settle("r1") is None
        assert target.settle("r2") == target.written


@pytest.mark.parametrize("mode", MODES)
def test_a_request_is_written_once(target: Target, mode: Mode) -> None:
    assert target.write("r1", mode) == target.written
    before = target.rows
    with pytest.raises(ReceiptUsedError, match="its 3 rows are there"):
        target.write("r1", mode)
    assert target.rows == before
    assert target.write("r2", mode) == target.written  # the next request is not in its way


def test_a_marker_tells_what_was_written_and_no_values(target: Target) -> None:
    target.write("r1")
    ((request_id, where, sha256, rows, at),) = run(target.connect, "SELECT * FROM approvals_write")
    assert (request_id, sha256, rows) == ("r1", target.approved.sha256, 3)
    assert where.endswith('."t"')
    assert at is not None


def test_a_lost_try_that_lives_on_cannot_write_after_it_was_settled(target: Target) -> None:
    assert target.settle("r1") is None
    with pytest.raises(ReceiptUsedError, match="a later try has closed it"):
        target.write("r1")
    assert target.rows == [0]
    assert target.settle("r1") is None


def test_a_refused_write_leaves_no_marker_and_no_table_of_markers(target: Target) -> None:
    Path(target.approved.uri).write_text("x\n7\n")
    with pytest.raises(DigestMismatchError):
        target.write("r1")
    assert target.rows == [0]
    with pytest.raises(Exception, match="approvals_write"):
        run(target.connect, "SELECT * FROM approvals_write")


def test_a_write_without_a_request_leaves_no_marker(target: Target) -> None:
    target.write(None)
    target.write(None)
    assert target.rows == [0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(Exception, match="approvals_write"):
        run(target.connect, "SELECT * FROM approvals_write")


def loader_for(connection: Any, *, lite: bool) -> Loader:
    return SqliteLoader(connection) if lite else PostgresLoader(connection)


@pytest.mark.parametrize("markers_are_there", [False, True])
def test_a_write_that_is_under_way_is_waited_for(target: Target, markers_are_there: bool) -> None:
    lite = is_sqlite(target.connect)
    if markers_are_there:
        target.settle("r0")
    loader = loader_for(target.connect(), lite=lite)
    told: list[Written | None] = []

    def settle() -> None:
        hook = SimpleNamespace(get_conn=target.connect)
        told.append(settle_write(hook=hook, table="t", request_id="r1"))

    later = threading.Thread(target=settle)
    with loader.transaction():
        loader.find_columns(("t",))
        assert loader.mark(Marker(request_id="r1", sha256="ab", rows=3)) is None
        later.start()
        later.join(timeout=0.5)
        assert later.is_alive()
        assert told == []
    later.join(timeout=60)
    assert told == [Written(rows=3, sha256="ab")]


def test_a_write_that_does_not_end_is_reported_as_unknown(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "PATIENCE", 1)
    loader = loader_for(target.connect(), lite=is_sqlite(target.connect))
    with loader.transaction():
        loader.find_columns(("t",))
        loader.mark(Marker(request_id="r1", sha256="ab", rows=3))
        with pytest.raises(LostWriteError, match="look into both tables"):
            target.settle("r1")


UNREADABLE: dict[str, tuple[str, type[ApprovalsError]]] = {
    "another table of that name": ("CREATE TABLE approvals_write (x int)", DestinationError),
    "without its key": (
        "CREATE TABLE approvals_write "
        "(request_id text, target_table text, sha256 text, row_count int, written_at text)",
        DestinationError,
    ),
    "a view": ("CREATE VIEW approvals_write AS SELECT 1 AS request_id", DestinationError),
    "the target is gone": ("DROP TABLE t", DestinationError),
}


@pytest.mark.parametrize(("statement", "error"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_without_markers_nothing_is_written_and_nothing_is_claimed(
    target: Target, statement: str, error: type[ApprovalsError]
) -> None:
    run(target.connect, statement)
    with pytest.raises(error):
        target.write("r1")
    with pytest.raises(LostWriteError, match="r1"):
        target.settle("r1")
    if "DROP" not in statement:
        assert target.rows == [0]


@pytest.mark.parametrize("name", ["approvals_write", 'main."APPROVALS_WRITE"'])
def test_the_table_of_markers_is_no_target(target: Target, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="where writes are recorded"):
        write_table(target.approved.uri, expected=target.approved, hook=target.connect(), table=name)
    with pytest.raises(InvalidRequestError, match="where writes are recorded"):
        settle_write(hook=target.connect(), table=name, request_id="r1")


def test_a_connection_in_a_transaction_settles_nothing(target: Target) -> None:
    connection = target.connect()
    connection.cursor().execute("INSERT INTO t VALUES (9)")
    with pytest.raises(InvalidRequestError, match="in a transaction"):
        settle_write(hook=connection, table="t", request_id="r1")
    connection.rollback()


def silenced(connect: Connect, *, committed: bool) -> Any:
    """Return a connection of the same driver that breaks at COMMIT, when the server has done it or before."""
    import psycopg
    import psycopg2

    driver: Any = psycopg2 if type(connect()).__module__.startswith("psycopg2") else psycopg
    real: Any = type(connect())

    class Silenced(real):  # type: ignore[misc]  # the driver is picked above
        def commit(self) -> None:
            if committed:
                super().commit()
            self.close()
            raise driver.OperationalError

    options = f"-c search_path={schema_of(connect)}"
    if driver is psycopg2:
        return psycopg2.connect(libpq_url(), options=options, connection_factory=Silenced)
    return Silenced.connect(libpq_url(), options=options)


CUTS: dict[str, tuple[bool, Callable[[Target], Written | None], list[int]]] = {
    "after COMMIT": (True, lambda target: target.written, [0, 1, 2, 3]),
    "before COMMIT": (False, lambda target: None, [0]),
}


@pytest.mark.services
@pytest.mark.parametrize(("committed", "told", "rows"), CUTS.values(), ids=CUTS.keys())
def test_a_connection_that_breaks_at_commit_is_unknown_until_it_is_settled(
    target: Target, committed: bool, told: Callable[[Target], Written | None], rows: list[int]
) -> None:
    if is_sqlite(target.connect):
        pytest.skip("SQLite answers in the same process")
    with pytest.raises(LostWriteError, match="nobody knows"):
        write_table(
            target.approved.uri,
            expected=target.approved,
            hook=silenced(target.connect, committed=committed),
            table="t",
            request_id="r1",
        )
    assert target.settle("r1") == told(target)
    assert target.rows == rows


@pytest.mark.services
def test_first_writes_at_once_both_arrive(target: Target) -> None:
    faults: list[BaseException] = []

    def write(request_id: str) -> None:
        try:
            target.write(request_id)
        except ApprovalsError as fault:
            faults.append(fault)

    writers = [threading.Thread(target=write, args=(f"r{number}",)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert faults == []
    assert target.rows == sorted([0, *[1, 2, 3] * 4])
