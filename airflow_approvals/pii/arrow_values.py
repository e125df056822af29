"""Arrow arrays as Python values, and a refusal by row where Python has no value for what Arrow holds."""

from __future__ import annotations

from typing import Any

from airflow_approvals.core.errors import SourceUnreadableError

_NO_VALUE = (ArithmeticError, LookupError, ValueError)  # Arrow's own errors are among them


def python_values(array: Any, column: str, *, first_row: int | None = None) -> list[Any]:
    """Return the values of one array.

    Times whose own time zone is unknown, or takes them out of the years 1 to 9999, are in UTC. Raise
    `SourceUnreadableError` for one that lies outside of these years there, too; `first_row` is the number of
    the first row, where it is known.
    """
    for one in (array, *_in_utc(array)):
        try:
            values: list[Any] = one.to_pylist()
        except _NO_VALUE:
            continue  # the message can repeat the value
        return values
    place = f"column {column!r}"
    if first_row is not None:
        row = next(row for row in range(len(one)) if not _is_readable(one[row]))
        place += f", row {first_row + row} (the first is 0)"
    raise SourceUnreadableError(
        f"{place}: holds a date or time that is none (of another year than 1 to 9999, of a time zone that "
        "nobody knows), or a struct in which two fields have one name; stage it without"
    )


def _in_utc(array: Any) -> tuple[Any, ...]:
    import pyarrow as pa

    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        return (array.cast(pa.timestamp(array.type.unit, tz="UTC")),)
    return ()


def _is_readable(scalar: Any) -> bool:
    try:
        scalar.as_py()
    except _NO_VALUE:
        return False
    return True
