"""Which cells of an Arrow batch are text, what text they are, and where it stands.

| Arrow type               | scanned as                                                     | may be         |
|--------------------------|----------------------------------------------------------------|----------------|
| string, dictionary of it | itself                                                         | anything       |
| integer, float, decimal  | its digits; whole ones without their `.0`; NaN, infinity not   | numbered       |
| date, time, timestamp    | ISO 8601 with a blank between date and time                    | DATE_TIME only |
| UUID                     | as it is written                                               | anything       |
| binary                   | itself where it is UTF-8; else it counts as skipped            | anything       |
| list, struct, map        | every leaf by these rules, field names along the way as context| by leaf        |
| null, bool, duration     | nothing                                                        | nothing        |

A null is never the text "None". "May be" is the type gate: an integer is no date and no person, whatever a
language model makes of its digits. With `typed=False` numbers and times are what `str()` says and may be
anything, as in Presidio's own batch engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from airflow_approvals.core.errors import CellTooLongError, SchemaMismatchError
from airflow_approvals.pii.arrow_values import python_values

MOST_CELLS = 250_000  # at a time: as Python values they take a hundred bytes each, and more
LONGEST_CELL = 1_000_000  # characters; spaCy refuses more (E088), because memory grows with them


def rows_at_a_time(columns: int) -> int:
    """Return of how many rows the cells fit into memory as Python values."""
    return max(1, MOST_CELLS // max(1, columns))


class Gate(StrEnum):
    """What a text may be, by the type of its column."""

    ANYTHING = "anything"
    NUMBERED = "numbered"  # what is written in digits and is not a date: cards, phones, account numbers
    TEMPORAL = "temporal"


class Place(NamedTuple):
    """Where a text stands."""

    row: int  # within the batch
    path: str = ""
    leaf_key: bool = False


@dataclass(kw_only=True)
class TextGroup:
    """Distinct texts that are scanned with the same context."""

    context: tuple[str, ...]  # the column's name, then the field names down to the leaf
    gate: Gate
    places: dict[str, list[Place]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ColumnTexts:
    """One column of one batch, as texts."""

    column: str
    type: str
    scanned: int
    nulls: int
    skipped: int
    groups: tuple[TextGroup, ...]


def texts_of_batch(batch: Any, *, typed: bool = True, first_row: int = 0) -> list[ColumnTexts]:
    """Return the texts of every column.

    Raise `SchemaMismatchError` where two columns share a name, `SourceUnreadableError` naming the row (the
    batch's first is `first_row`) of a time that is none.
    """
    names = batch.schema.names
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SchemaMismatchError(
            f"columns named more than once: {twice}; findings could not say which; rename"
        )
    return [
        texts_of_column(name, batch.column(index), typed=typed, first_row=first_row)
        for index, name in enumerate(names)
    ]


def texts_of_column(name: str, array: Any, *, typed: bool = True, first_row: int = 0) -> ColumnTexts:
    """Return the distinct texts of one Arrow array and where they stand."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    groups: dict[tuple[tuple[str, ...], Gate], TextGroup] = {}
    scanned = skipped = 0
    if not _has_no_text(kind):
        nested = pa.types.is_nested(kind)
        for row, value in _values(array, name, first_row):
            leaves = _leaves(value, "", (name,)) if nested else iter([(value, "", (name,), False)])
            found = False
            for leaf, path, context, leaf_key in leaves:
                text, gate = text_of(leaf, typed=typed)
                if text is None:
                    continue
                found = True
                group = groups.get((context, gate))
                if group is None:
                    group = groups[context, gate] = TextGroup(context=context, gate=gate)
                group.places.setdefault(text, []).append(Place(row, path, leaf_key))
            scanned += found
            skipped += not found and not _is_blank(value)
    return ColumnTexts(
        column=name,
        type=str(kind),
        scanned=scanned,
        nulls=array.null_count,
        skipped=skipped,
        groups=tuple(groups.values()),
    )


def text_of(value: Any, *, typed: bool = True) -> tuple[str | None, Gate]:
    """Return the text that one Python value is scanned as, None when it has none, and what it may be."""
    if isinstance(value, str):
        return value, Gate.ANYTHING
    if value is None or isinstance(value, bool):
        return None, Gate.ANYTHING
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8"), Gate.ANYTHING
        except UnicodeDecodeError:
            return None, Gate.ANYTHING
    if isinstance(value, (int, float, Decimal)):
        return _number(value, typed=typed)
    if isinstance(value, (date, datetime, time)):
        return str(value), Gate.TEMPORAL if typed else Gate.ANYTHING
    return (str(value) if isinstance(value, UUID) else None), Gate.ANYTHING


def check_length(text: str, column: str, row: int | None = None) -> None:
    """Raise `CellTooLongError` for a text that no engine takes; `row` where it is known."""
    if len(text) > LONGEST_CELL:
        place = f"column {column!r}" + ("" if row is None else f", row {row} (the first is 0)")
        raise CellTooLongError(
            f"{place}: {len(text)} characters in one text; at most {LONGEST_CELL} can be scanned; split it, "
            "or let the masking plan drop the column"
        )


def _number(value: int | float | Decimal, *, typed: bool) -> tuple[str | None, Gate]:
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        return None, Gate.NUMBERED
    if not typed:
        return str(value), Gate.ANYTHING
    # Integers with nulls arrive as floats from pandas, and as decimal(38, 10) from databases:
    # 4111111111111111.0 is a card all the same.
    if isinstance(value, Decimal):
        return str(int(value)) if value == value.to_integral_value() else f"{value:f}", Gate.NUMBERED
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value)), Gate.NUMBERED
    return str(value), Gate.NUMBERED


def _has_no_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_null(kind) or pa.types.is_boolean(kind) or pa.types.is_duration(kind))


def _values(array: Any, column: str, first_row: int) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa

    if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        # Python's datetime has no nanoseconds; they say nothing about a person.
        array = array.cast(pa.timestamp("us", tz=array.type.tz), safe=False)
    if pa.types.is_time64(array.type) and array.type.unit == "ns":
        array = array.cast(pa.time64("us"), safe=False)
    for row, value in enumerate(python_values(array, column, first_row=first_row)):
        if value is not None:
            yield row, value


def _leaves(
    value: Any, path: str, context: tuple[str, ...], leaf_key: bool = False
) -> Iterator[tuple[Any, str, tuple[str, ...], bool]]:
    """Walk dicts, lists and maps (lists of pairs); a map's keys are data, so they are leaves as well."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}/{pointer(key)}", (*context, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, tuple) and len(inner) == 2:
                yield from _leaves(inner[0], f"{path}/{index}/0", context, True)
                yield from _leaves(inner[1], f"{path}/{index}/1", context)
            else:
                yield from _leaves(inner, f"{path}/{index}", context)
    else:
        yield value, path, context, leaf_key


def pointer(key: object) -> str:
    """Return one step of a JSON pointer (RFC 6901)."""
    return str(key).replace("~", "~0").replace("/", "~1")


def _is_blank(value: Any) -> bool:
    """Tell whether a cell without text holds nothing at all: NaN, an empty list, nulls all the way down."""
    if isinstance(value, (float, Decimal)):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_blank(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_blank(inner) for inner in value)
    return value is None or isinstance(value, bool)
