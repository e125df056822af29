"""A masked dataset with its tokens opened again, by whoever has the key: the way back from `encrypt`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_approvals.core.errors import DigestMismatchError, SchemaMismatchError, VerificationError
from airflow_approvals.core.model import Snapshot
from airflow_approvals.pii.masking.datasets import open_destination
from airflow_approvals.pii.masking.encryption import decrypt_all
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.leaves import Leaf, parse_json, rebuild, write_json
from airflow_approvals.pii.masking.reading import DatasetReader
from airflow_approvals.pii.masking.writing import open_writer
from airflow_approvals.staging.locations import Part, locate
from airflow_approvals.staging.snapshot import snapshot


def decrypt_dataset(
    source_uri: str,
    destination_uri: str,
    keys: KeyRing,
    *,
    columns: Sequence[str],
    domain: str,
    expected: Snapshot,
    source_conn_id: str | None = None,
    format: str | None = None,  # the word that users know
    overwrite: bool = False,
) -> Snapshot:
    """Open every token in `columns` into a new dataset; return what was written.

    Nothing appears unless the source was `expected` to its last byte (`DigestMismatchError`), and every token
    was made under the key of `domain` and never changed (`VerificationError`, naming column and row).
    """
    reader = DatasetReader(locate(source_uri, source_conn_id), format)
    keys.key_for(domain, "encrypt", 64)  # a missing key is found before the first row is read
    opening = _Opening(keys, domain, columns)
    with open_destination(reader, destination_uri, overwrite=overwrite) as (_, target):
        for part in reader.listing.parts:
            with target.open_sink(part.name) as write, open_writer(write, reader.layout) as writer:
                for batch in opening.batches(reader, part):
                    writer.write(batch)
        if reader.sha256 != expected.sha256:
            raise DigestMismatchError(
                f"{source_uri}: is not what was approved; expected sha256 {expected.sha256}, found "
                f"{reader.sha256}; nothing was written; ask for what it is now",
                expected=expected.sha256,
                found=reader.sha256,
            )
        target.appear()
    return snapshot(destination_uri, format=format)


class _Opening:
    """Opens the tokens in some columns of one batch after the other."""

    def __init__(self, keys: KeyRing, domain: str, columns: Sequence[str]) -> None:
        self._keys = keys
        self._domain = domain
        self._columns = tuple(columns)

    def batches(self, reader: DatasetReader, part: Part) -> Iterator[Any]:
        rows = 0
        for batch in reader.batches_of(part):
            if isinstance(batch, list):
                yield self._objects(batch, part, rows)
                rows += len(batch)
            else:
                yield self._arrow(batch, part, rows)
                rows += batch.num_rows

    def _objects(self, rows: list[dict[str, Any]], part: Part, first: int) -> list[dict[str, Any]]:
        return [
            {
                key: self._cell(value, key, part, first + number) if key in self._columns else value
                for key, value in row.items()
            }
            for number, row in enumerate(rows)
        ]

    def _arrow(self, batch: Any, part: Part, first: int) -> Any:
        import pyarrow as pa

        if unknown := sorted(set(self._columns) - set(batch.schema.names)):
            raise SchemaMismatchError(f"{part.name}: has no columns {unknown}; name those that hold tokens")
        arrays = [
            pa.array(
                [
                    self._cell(value, field.name, part, first + row)
                    for row, value in enumerate(column.to_pylist())
                ],
                field.type,
            )
            if field.name in self._columns
            else column
            for field, column in zip(batch.schema, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)

    def _cell(self, value: Any, column: str, part: Part, row: int) -> Any:
        try:
            if isinstance(value, str) and (parsed := parse_json(value)) is not None:
                # A value may hold quotes: put into JSON as it is, it would break it.
                return write_json(rebuild(parsed, self._leaf, (column,)), value)
            return rebuild(value, self._leaf, (column,))
        except VerificationError as error:
            raise VerificationError(f"{part.name}, row {row}, column {column!r}: {error}") from None

    def _leaf(self, leaf: Leaf) -> Any:
        if not isinstance(leaf.value, str):
            return leaf.value
        return decrypt_all(leaf.value, self._keys, self._domain)
