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
}
_FUNCTION = "approvals_refuse_change"


def create_guards(connection: Connection) -> None:
    """Create the triggers on the ledger's tables; those that exist are kept."""
    for statement in _creation(connection.dialect.name):
        connection.execute(text(statement))


def drop_guards(connection: Connection) -> None:
    """Remove what dropping the tables leaves behind, and the triggers with it."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"DROP FUNCTION IF EXISTS {_FUNCTION}() CASCADE"))


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
        "AND tgrelid IN (to_regclass('approvals_ledger_entry'), to_regclass('approvals_ledger_node'))"
        if connection.dialect.name == "postgresql"
        else "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    )
    return frozenset(connection.execute(text(query)).scalars()) & guard_names(connection.dialect.name)


def _creation(dialect: str) -> Iterator[str]:
    if dialect == "postgresql":
        yield (
            f"CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION 'the ledger is append-only: % on % refused', TG_OP, TG_TABLE_NAME; END $$"
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
        yield (
            f"CREATE TRIGGER IF NOT EXISTS {table}_refuses_replace BEFORE INSERT ON {table} WHEN EXISTS "
            f"(SELECT 1 FROM {table} WHERE {same_key}) BEGIN "
            f"SELECT RAISE(ABORT, 'the ledger is append-only: replace on {table} refused'); END"
        )  # noqa: S608  # our own table names
