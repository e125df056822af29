"""Writing a staged dataset into a table: staged, counted and proven in one transaction, or not at all.

The rows are loaded into a temporary table while the bytes they come from are hashed; the target is touched
only when every digest is the approved one and every row is there. Columns are compared first, and nothing
is converted in a way that loses anything, with one exception that CSV forces: it has no types, so its text
is read by the database as whatever type the target column has.

A write for a request happens once, whatever dies. In the same transaction as its rows goes one row into
`approvals_write`, a small table beside the target (same schema, same SQLite file) that the first write
creates: `request_id` (its key), `target_table`, `sha256`, `row_count`, `written_at`. Who comes later reads
there whether the rows are in (`settle_write`). A row without `sha256` and `row_count` means that a later
try has closed the request, and that the lost one can no longer commit. Rows may be deleted once their
requests are closed. Where the writer may not create tables, make this one for it, with the right to
SELECT and INSERT.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from airflow_approvals.core.errors import (
    ConfigurationError,
    DestinationError,
    DigestMismatchError,
    InvalidRequestError,
    LostWriteError,
    ReceiptUsedError,
    SchemaMismatchError,
)
from airflow_approvals.core.model import FileDigest, Snapshot
from airflow_approvals.staging.formats import find_layout, open_reader
from airflow_approvals.staging.locations import locate
from airflow_approvals.staging.publish import check_digest, check_names
from airflow_approvals.staging.sql_tables import (
    MARKERS,
    Loader,
    Marker,
    Mode,
    NewColumn,
    SourceColumn,
    TargetColumn,
    split_table_name,
)

PATIENCE = 60  # seconds; how long a write that may still be under way is waited for


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the target got."""

    rows: int
    sha256: str


def write_table(
    source_uri: str,
    *,
    expected: Snapshot,
    hook: Any,
    table: str,
    mode: Mode = "append",
    columns: Mapping[str, str] | None = None,
    source_conn_id: str | None = None,
    request_id: str | None = None,
    create: Sequence[NewColumn] = (),
    as_text: Collection[str] = (),
) -> Written:
    """Write the dataset into `table` if, and only if, its bytes are the expected ones.

    `hook` is a PostgresHook, a SqliteHook, or a connection of psycopg, psycopg2 or sqlite3 that is in no
    transaction. `table` is `name` or `schema.name`, a part with a dot in double quotes. `columns` maps
    names of the source to names of the table; those left out keep their name. `replace` deletes the rows
    that are there, in the same transaction.

    With `create` a table that is not there is made, in the same transaction. `as_text` names columns of the
    source whose text the database reads as its own type, as it does with CSV.

    With `request_id` this is the one write of that request: a second one raises `ReceiptUsedError`, and
    `settle_write` tells what became of it. A connection that breaks at COMMIT raises `LostWriteError`.
    """
    if mode not in ("append", "replace"):
        raise InvalidRequestError(f"mode {mode!r} is not known; expected append or replace")
    name = _split_target(table)
    pairs = _pair_columns(expected, columns or {}, as_text)
    location = locate(source_uri, source_conn_id)
    listing = location.list_parts()
    wanted = check_names(source_uri, listing, expected)
    layout = find_layout(listing, expected.format)
    with _loader_of(hook) as loader, loader.transaction():
        targets = loader.find_columns(name)
        if create and not targets:
            loader.create(name, create)
            targets = loader.find_columns(name)
        _check_target(table, pairs, targets, loader)
        if request_id is not None:
            # First of all, so that a later try that looks for it waits for the end of this write.
            _mark_once(
                table, Marker(request_id=request_id, sha256=expected.sha256, rows=expected.rows), loader
            )
        loader.make_staging(name, pairs)
        for part in listing.parts:
            with location.open_part(part, steady=False) as file:
                reader = open_reader(file, part, layout)
                for batch in reader:
                    loader.load(batch)
            found = FileDigest(name=part.name, sha256=reader.sha256, size=reader.size)
            check_digest(part.name, wanted[part.name], found)
        _check_rows(table, expected.rows, *loader.move(mode=mode))
    return Written(rows=expected.rows, sha256=expected.sha256)


def check_hook(hook: Any) -> None:
    """Raise `ConfigurationError` where a hook is known to be of another database; opens no connection.

    Hooks that come with none of Airflow's providers are left to the write, which looks at their connection.
    """
    modules = [cls.__module__.split(".") for cls in type(hook).__mro__]
    providers = {names[2] for names in modules if names[:2] == ["airflow", "providers"]} - {"common"}
    if providers and not providers & {"postgres", "sqlite"}:
        raise _unsupported(type(hook).__name__)


def settle_write(*, hook: Any, table: str, request_id: str) -> Written | None:
    """Return what the request has written into `table`, or None: nothing, and it never will.

    None is made true by closing the request in the same look: a try that was thought dead and is not can
    no longer commit. One that is committing right now is waited for, a minute at most. Raises
    `LostWriteError` where the table of markers cannot be read or written, so that nobody knows.
    """
    name = _split_target(table)
    lost = ""
    with _loader_of(hook) as loader:
        try:
            with loader.transaction(patience=PATIENCE):
                if loader.find_columns(name):
                    found = loader.mark(Marker(request_id=request_id))
                else:
                    lost = "there is no such table any more"
        except (DestinationError, LostWriteError) as refusal:
            lost = str(refusal)
    if lost:
        raise LostWriteError(
            f"request {request_id}: whether its rows are in {table} cannot be read from {MARKERS} ({lost}); "
            "look into both tables before asking for this write again"
        )
    if found is None or found.sha256 is None or found.rows is None:
        return None
    return Written(rows=found.rows, sha256=found.sha256)


def _split_target(table: str) -> tuple[str, ...]:
    name = split_table_name(table)
    if name[-1].lower() == MARKERS:
        raise InvalidRequestError(f"table {table!r} is where writes are recorded; it cannot be written to")
    return name


def _mark_once(table: str, marker: Marker, loader: Loader) -> None:
    found = loader.mark(marker)
    if found is None:
        return
    what = "a later try has closed it" if found.sha256 is None else f"its {found.rows} rows are there"
    raise ReceiptUsedError(
        f"{table}: request {marker.request_id} has had its write ({what}, says {MARKERS}); nothing was "
        "written now; ask for a new approval to write again"
    )


@contextmanager
def _loader_of(hook: Any) -> Iterator[Loader]:
    connection, is_ours = (hook.get_conn(), True) if hasattr(hook, "get_conn") else (hook, False)
    try:
        yield _loader_for(connection)
    finally:
        if is_ours:
            connection.close()


def _pair_columns(
    expected: Snapshot, mapping: Mapping[str, str], as_text: Collection[str]
) -> tuple[SourceColumn, ...]:
    unknown = sorted(set(mapping) - {column.name for column in expected.columns})
    if unknown:
        raise SchemaMismatchError(f"{expected.uri}: has no columns {unknown}; map only what is there")
    pairs = tuple(
        SourceColumn(
            name=column.name,
            target=mapping.get(column.name, column.name),
            type=column.type,
            untyped=expected.format == "csv" or column.name in as_text,
        )
        for column in expected.columns
    )
    if len({pair.target for pair in pairs}) != len(pairs):
        raise SchemaMismatchError(f"{expected.uri}: two columns are mapped to the same name")
    return pairs


def _check_target(
    table: str, pairs: tuple[SourceColumn, ...], targets: tuple[TargetColumn, ...], loader: Loader
) -> None:
    if not targets:
        raise DestinationError(f"{table}: there is no such table; create it, with the columns of the source")
    by_name = {target.name: target for target in targets}
    faults = []
    for position, pair in enumerate(pairs, start=1):
        target = by_name.get(pair.target)
        if target is None:
            faults.append(f"the table has no column for column number {position} of the source")
        elif not target.writable:
            faults.append(f"column {target.name!r} is computed by the database")
        elif not loader.accepts(pair, target):
            faults.append(f"column {target.name!r} is {target.type}, which cannot keep every {pair.type}")
    given = {pair.target for pair in pairs}
    faults += [
        f"column {target.name!r} must have a value and gets none"
        for target in targets
        if target.required and target.name not in given
    ]
    if faults:
        raise SchemaMismatchError(f"{table}: {'; '.join(faults)}; nothing was written")


def _check_rows(table: str, approved: int, staged: int, arrived: int) -> None:
    if not approved == staged == arrived:
        raise DigestMismatchError(
            f"{table}: {approved} rows were approved, {staged} were staged and {arrived} arrived; "
            "nothing was written; look for a trigger or rule on the table that drops rows"
        )


def _loader_for(connection: Any) -> Loader:
    drivers = {cls.__module__.partition(".")[0] for cls in type(connection).__mro__}
    if "sqlite3" in drivers:
        from airflow_approvals.staging.sql_sqlite import SqliteLoader

        return SqliteLoader(connection)
    if drivers & {"psycopg", "psycopg2"}:
        from airflow_approvals.staging.sql_postgres import PostgresLoader

        return PostgresLoader(connection)
    raise _unsupported(type(connection).__module__)


def _unsupported(found: str) -> ConfigurationError:
    return ConfigurationError(
        f"a connection of {found} cannot be written to; expected PostgreSQL (psycopg, psycopg2) or SQLite "
        "(sqlite3): one transaction around everything is proven for these alone; name a connection of one "
        "of them, or put the gate around an operator of that database: gated(...)"
    )
