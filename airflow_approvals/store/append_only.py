"""Database triggers that refuse to change or remove what is in the ledger, whoever asks.

They stop mistakes and ordinary accounts. Whoever may drop triggers can still rewrite rows: that is what the
signed checkpoints and the offline verification are for.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

_SAME_KEY = {
    "approvals_ledger_entry": "idx = NEW.idx",
    "approvals_ledger_node": "level = NEW.level AND idx = NEW.idx",
    "approvals_checkpoint": "size = NEW.size",
}
_FUNCTION = "approvals_refuse_change"


def create_guards(connection: Connection) -> None:
    """Create the triggers on the ledger's tables; those that exist are kept."""
    for statement in guard_statements(connection.dialect.name):
        connection.execute(text(statement))


def drop_guards(connection: Connection) -> None:
    """Remove what dropping the tables leaves behind, and the triggers with it."""
    for statement in unguard_statements(connection.dialect.name):
        connection.execute(text(statement))


def guard_names(dialect: str) -> frozenset[str]:
    """Return the names of all triggers that must exist."""
    if dialect == "postgresql":
        return frozenset(f"{table}_is_append_only" for table in _SAME_KEY)
    return frozenset(
        f"{table}_refuses_{what}" for table in _SAME_KEY for what in ("update", "delete", "replace")
    )


def find_guards(connection: Connection) -> frozenset[str]:
    """Return the names of the triggers that exist and are enabled."""
    query = (
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') "
        "AND tgrelid IN (to_regclass('approvals_ledger_entry'), to_regclass('approvals_ledger_node'), "
        "to_regclass('approvals_checkpoint'))"
        if connection.dialect.name == "postgresql"
        else "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    )
    return frozenset(connection.execute(text(query)).scalars()) & guard_names(connection.dialect.name)


def unguard_statements(dialect: str) -> tuple[str, ...]:
    """Return the SQL behind `drop_guards`."""
    return (f"DROP FUNCTION IF EXISTS {_FUNCTION}() CASCADE",) if dialect == "postgresql" else ()


def guard_statements(dialect: str) -> Iterator[str]:
    """Return the SQL behind `create_guards`."""
    if dialect == "postgresql":
        yield (
            f"CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION USING MESSAGE = "
            "'the ledger is append-only: ' || lower(TG_OP) || ' on ' || TG_TABLE_NAME || ' refused'; END $$"
        )
        for table in _SAME_KEY:
            yield f"DROP TRIGGER IF EXISTS {table}_is_append_only ON {table}"
            yield (
                f"CREATE TRIGGER {table}_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
                f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}()"
            )
        return
    for table, same_key in _SAME_KEY.items():
        for what in ("update", "delete"):
            yield (
                f"CREATE TRIGGER IF NOT EXISTS {table}_refuses_{what} BEFORE {what.upper()} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: {what} on {table} refused'); END"
            )
        # INSERT OR REPLACE removes the old row without firing a delete trigger (recursive_triggers is off).
        taken = f"SELECT 1 FROM {table} WHERE {same_key}"  # noqa: S608  # our own table names
        yield (
            f"CREATE TRIGGER IF NOT EXISTS {table}_refuses_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS ({taken}) "
            f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: replace on {table} refused'); END"
        )
