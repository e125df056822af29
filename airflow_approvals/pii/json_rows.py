"""Objects of JSON Lines as Arrow columns: to be scanned and planned, never to be written back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from airflow_approvals.core.errors import SourceUnreadableError

Rows = Sequence[dict[str, Any]]


def batch_of_rows(rows: Rows, names: Iterable[str] = ()) -> Any:
    """Return a `pyarrow.RecordBatch` of these objects; `names` come first, null where no object has them.

    A column whose values have no type in common is a column of texts: strings as they are, all else as JSON.
    Raise `SourceUnreadableError` with row (from 0) and column where a text holds half a character.
    """
    import pyarrow as pa

    every = dict.fromkeys(names)
    for row in rows:
        every.update(dict.fromkeys(row))
    arrays = [_array(name, [row.get(name) for row in rows]) for name in every]
    # With a schema of its own, because a batch without columns has no rows.
    schema = pa.schema([pa.field(name, array.type) for name, array in zip(every, arrays, strict=True)])
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(name: str, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    try:
        made = pa.array(values, from_pandas=False)
    except UnicodeEncodeError:
        made = None  # the error holds the text
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        made = _texts(values)
    if made is None:
        row = next(number for number, value in enumerate(values) if not is_encodable(value))
        raise SourceUnreadableError(
            f"column {name!r}, row {row}: holds half a character (a lone surrogate); expected whole ones; "
            "stage it without"
        )
    # What is null in every row seen so far says nothing: later it may be text.
    return made.cast(pa.string()) if pa.types.is_null(made.type) else made


def is_encodable(value: Any) -> bool:
    """Return whether all texts in a value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(values: Sequence[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array([_text(value) for value in values], pa.string())
    except UnicodeEncodeError:
        return None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
