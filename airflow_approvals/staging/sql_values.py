"""Values on their way into a database, made plain without losing anything."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

from airflow_approvals.core.errors import SchemaMismatchError


def plain_batch(batch: Any) -> Any:
    """Return an Arrow batch without dictionaries, in microseconds; raise `SchemaMismatchError` if finer."""
    import pyarrow as pa

    arrays = []
    for column, field in zip(batch.columns, batch.schema, strict=True):
        kind = field.type
        plain = column
        try:
            if pa.types.is_dictionary(kind):
                plain = column.dictionary_decode()
            elif pa.types.is_timestamp(kind) and kind.unit == "ns":
                plain = column.cast(pa.timestamp("us", tz=kind.tz))
            elif pa.types.is_time64(kind) and kind.unit == "ns":
                plain = column.cast(pa.time64("us"))
        except pa.ArrowInvalid:
            plain = None  # Arrow's message repeats the value: it must not travel along
        if plain is None:
            raise SchemaMismatchError(
                f"column {field.name!r} holds fractions of a microsecond, which the database cannot keep"
            )
        arrays.append(plain)
    return pa.record_batch(arrays, names=batch.schema.names)


def json_text(value: Any) -> str:
    """Return a list or struct as JSON; raise `ValueError` for what JSON cannot say."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_json_default)


def _json_default(value: Any) -> str:
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise ValueError("not JSON")
