"""Record batches in, masked record batches out, with the schema that the rules say beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.pii.arrow_values import python_values
from airflow_approvals.pii.masking.cells import keeps_type
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.tables import TableMasker


def masked_schema(schema: Any, rules: MaskingRules) -> Any:
    """Return the `pyarrow.Schema` of the masked table.

    Names, order, types and nullability are kept but for dropped columns and those that become strings. The
    schema's metadata is left out: it can hold anything. Raise `InvalidRequestError` where a rule misfits.
    """
    import pyarrow as pa

    rules.check_columns(schema.names)
    fields = []
    for field in schema:
        rule = rules.by_column[field.name]
        if rule.treatment is Treatment.DROP:
            continue
        _check_rule(rule, field.type)
        kind = pa.string() if rule.becomes and not _is_text(field.type) else field.type
        fields.append(pa.field(field.name, kind, nullable=field.nullable))
    return pa.schema(fields)


def mask_batch(masker: TableMasker, batch: Any) -> Any:
    """Return a new `pyarrow.RecordBatch`; columns that are left alone share the old one's memory."""
    import pyarrow as pa

    schema = masked_schema(batch.schema, masker.rules)
    rules = masker.rules.by_column
    made = masker.mask_columns(
        {name: _Values(batch.column(name), name, masker.rows) for name in batch.schema.names}
    )
    arrays = [
        batch.column(field.name)
        if rules[field.name].treatment is Treatment.LEAVE
        else _array(made[field.name], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Values(Sequence[Any]):
    """A column's Python values, made when somebody asks for them."""

    def __init__(self, array: Any, column: str, first_row: int) -> None:
        self._array = array
        self._column = column
        self._first_row = first_row
        self._values: list[Any] | None = None

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all())

    def _all(self) -> list[Any]:
        if self._values is None:
            self._values = python_values(self._array, self._column, first_row=self._first_row)
        return self._values


def _array(values: Sequence[Any], kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def _check_rule(rule: ColumnRule, kind: Any) -> None:
    import pyarrow as pa

    if rule.treatment is Treatment.CELL and rule.operator and not rule.becomes and not _is_text(kind):
        is_date = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
        if not keeps_type(rule.operator, is_date=is_date, is_integer=pa.types.is_integer(kind)):
            raise InvalidRequestError(
                f"column {rule.column!r} is {kind}, and {rule.operator.op} turns it into text; "
                "expected a rule that says so: becomes: string"
            )
    if rule.treatment is Treatment.TEXT and not _is_text(kind):
        raise InvalidRequestError(
            f"column {rule.column!r} is {kind}: there is no text in it to mask pieces of; "
            "expected whole cells, leaves (for nested types), leave or drop"
        )
    if rule.treatment is Treatment.LEAVES and not (_is_text(kind) or pa.types.is_nested(kind)):
        raise InvalidRequestError(
            f"column {rule.column!r} is {kind} and has no leaves; expected whole cells, leave or drop"
        )


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
