"""What a table is that is read: whose, and its columns as the database declares them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow_approvals.core.errors import SourceMissingError
from airflow_approvals.staging.sql_tables import quoted

BATCH_ROWS = 4_096


@dataclass(frozen=True, kw_only=True)
class StoredColumn:
    """One column as its database declares it."""

    name: str
    declared: str
    required: bool  # not null
    key: int  # place in the primary key, from 1; 0 is none
    as_text: bool  # another type in Arrow, mostly text, of which the database makes the same value again


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table: whose it is, and its columns in order."""

    kind: str  # postgresql, sqlite
    columns: tuple[StoredColumn, ...]

    @property
    def key(self) -> tuple[StoredColumn, ...]:
        """The columns of the primary key in its order, none where there is none."""
        return tuple(sorted((one for one in self.columns if one.key), key=lambda one: one.key))


class TableReader:
    """An open table: `schema` (pyarrow), `stored`, and its rows once."""

    def __init__(self, stored: StoredTable, schema: Any, batches: Iterator[Any]) -> None:
        self.stored = stored
        self.schema = schema
        self.batches = batches


def no_table(table: tuple[str, ...]) -> SourceMissingError:
    """Return the refusal of a name that is no table."""
    return SourceMissingError(
        f"{quoted(*table)}: there is no such table or view; check the name, the schema and the rights"
    )
