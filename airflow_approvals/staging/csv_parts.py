"""CSV as RFC 4180 has it: comma, double quotes, a header line, UTF-8.

CSV has no types, so every column is a `string`: a type guessed from the first rows would change with the
order of the rows. An empty field is null, a quoted empty one is the empty string. Lines without anything are
no rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

from airflow_approvals.core.errors import SourceEmptyError, SourceUnreadableError
from airflow_approvals.core.model import Column
from airflow_approvals.staging.locations import ByteSource
from airflow_approvals.staging.streams import HashedFile, TextFile, unpack

BLOCK = 4 * 1024 * 1024  # bytes parsed at a time; one row must fit
SEPARATORS = ";\t|"  # of what others call CSV: all their columns would be taken for one
SHORT = 64 * 1024  # bytes; a first chunk shorter than this is the whole file


class CsvPart:
    """One CSV file."""

    def __init__(self, source: ByteSource, name: str, compression: str | None) -> None:
        self._name = name
        self._file = HashedFile(source, name)
        self._text = TextFile(unpack(self._file, compression), name)
        self._bad_row: Any = None
        self.columns: tuple[Column, ...] = ()
        self.sha256 = ""

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def schema(self) -> Any:
        import pyarrow as pa

        return pa.schema([(column.name, pa.string()) for column in self.columns])

    def __iter__(self) -> Iterator[Any]:
        import pyarrow as pa

        self.columns = tuple(Column(name=name, type="string") for name in self._header())
        rows = 1  # the header is row 1, as in a spreadsheet
        try:
            for batch in self._open() if self._has_rows() else ():
                rows += batch.num_rows
                if batch.num_rows:
                    yield batch
        except pa.ArrowInvalid:
            # Arrow's message quotes the row: it must not travel along.
            reason = self._reason(rows)
        else:
            self._check_quotes()
            self.sha256 = self._file.finish()
            return
        raise SourceUnreadableError(f"{self._name}: {reason}")

    def _open(self) -> Any:
        import pyarrow as pa
        from pyarrow import csv as pacsv

        return pacsv.open_csv(
            pa.PythonFile(self._text, mode="r"),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=self._refuse_row),
            convert_options=pacsv.ConvertOptions(
                column_types={column.name: pa.string() for column in self.columns},
                check_utf8=False,  # TextFile has
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _header(self) -> list[str]:
        start = self._text.peek_start()
        if not start:
            raise SourceEmptyError(f"{self._name}: holds no bytes; expected a header line and rows")
        # A chunk can end within a character; the header is long over by then, or refused below.
        lines = csv.reader(io.StringIO(start.decode(errors="ignore"), newline=""), strict=True)
        try:
            names = next((row for row in lines if row), [])
        except csv.Error:
            names = []
        if not names:
            raise SourceUnreadableError(f"{self._name}: row 1 is not a header of column names")
        if len(names) == 1 and (signs := [sign for sign in SEPARATORS if sign in names[0]]):
            raise SourceUnreadableError(
                f"{self._name}: row 1 is one column with {signs[0]!r} in its name: this looks like the "
                "separator of several; expected commas: write it with commas, or as Parquet"
            )
        for position, name in enumerate(names):
            if not name.strip():
                raise SourceUnreadableError(f"{self._name}: column {position + 1} has no name in the header")
            if name in names[:position]:
                raise SourceUnreadableError(
                    f"{self._name}: columns {names.index(name) + 1} and {position + 1} have the same name"
                )
        return names

    def _has_rows(self) -> bool:
        """Arrow takes a header without a line end for an error, not for an empty file."""
        start = self._text.peek_start()
        if len(start) >= SHORT:
            return True
        lines = csv.reader(io.StringIO(start.decode(errors="ignore"), newline=""))
        try:
            return sum(1 for _ in islice(filter(None, lines), 2)) > 1
        except csv.Error:
            return True

    def _refuse_row(self, row: Any) -> str:
        self._bad_row = row
        return "error"

    def _reason(self, rows: int) -> str:
        row = self._bad_row
        if row is None:
            return f"cannot be parsed after row {rows}, or a row is longer than {BLOCK} bytes"
        number = row.number if row.number is not None else f"after {rows}"
        return f"row {number} has {row.actual_columns} fields, expected {row.expected_columns}"

    def _check_quotes(self) -> None:
        # Arrow takes all that follows an unclosed quote as one value, without a word.
        if self._text.quotes % 2:
            raise SourceUnreadableError(
                f"{self._name}: an odd number of double quotes: one is never closed; "
                'write a quote within a value as "" and the value in quotes'
            )
