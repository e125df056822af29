"""Objects of JSON Lines as Arrow columns: to be scanned and planned, never to be written back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

Rows = Sequence[dict[str, Any]]


def batch_of_rows(rows: Rows, names: Iterable[str] = ()) -> Any:
    """Return a `pyarrow.RecordBatch` of these objects; `names` come first, null where no object has them.

    A column whose values have no type in common is a column of texts: strings as they are, all else as JSON.
    """
    import pyarrow as pa

    every = dict.fromkeys(names)
    for row in rows:
        every.update(dict.fromkeys(row))
    arrays = [_array([row.get(name) for row in rows]) for name in every]
    # With a schema of its own, because a batch without columns has no rows.
    schema = pa.schema([pa.field(name, array.type) for name, array in zip(every, arrays, strict=True)])
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any]) -> Any:
    import pyarrow as pa

    try:
        made = pa.array(values, from_pandas=False)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        made = pa.array([_text(value) for value in values], pa.string())
    # What is null in every row seen so far says nothing: later it may be text.
    return made.cast(pa.string()) if pa.types.is_null(made.type) else made


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
