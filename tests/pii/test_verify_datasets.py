from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest
from pyarrow import parquet  # noqa: TID253

from airflow_approvals.pii.masking.datasets import mask_dataset
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import Fake, Operator, Pseudonym
from airflow_approvals.pii.masking.rules import MaskingRules
from airflow_approvals.pii.planning import plan_masking
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.verify_datasets import verify_masked
from airflow_approvals.pii.verify_report import VerifyReport
from tests.pii.customers import customers

KEYS = KeyRing(domains={"people": b"p" * 32})
OPERATORS: dict[str, Operator] = {
    "PERSON": Pseudonym(domain="people"),
    "EMAIL_ADDRESS": Fake(domain="people"),
    "CREDIT_CARD": Fake(domain="people"),
}
ROWS = 15
ORIGIN = 5  # whose values are put back
PERSONAL = ("full_name", "email", "phone", "ssn", "credit_card", "iban", "ip", "address")


class Case:
    """A table, what masking made of it, and the way to ask whether that holds."""

    def __init__(self, folder: Path, scanner: Scanner) -> None:
        self._folder = folder
        self._scanner = scanner
        table = customers(ROWS, seed=21)
        tags = [["vip", name] for name in table["full_name"].to_pylist()]
        people = [{"mail": mail, "age": 40} for mail in table["email"].to_pylist()]
        self.source = table.append_column("tags", pa.array(tags)).append_column("person", pa.array(people))
        parquet.write_table(self.source, folder / "in.parquet")
        self.rules: MaskingRules = plan_masking(
            scanner, self.source.to_batches(), operators=OPERATORS
        ).rules()
        mask_dataset(str(folder / "in.parquet"), str(folder / "out.parquet"), self.rules, KEYS, scanner)
        self.masked = parquet.read_table(folder / "out.parquet")

    def verify(self, table: Any, keys: KeyRing | None = KEYS) -> VerifyReport:
        """Return the report on `table` as the output."""
        parquet.write_table(table, self._folder / "again.parquet")
        paths = str(self._folder / "in.parquet"), str(self._folder / "again.parquet")
        return verify_masked(*paths, self.rules, self._scanner, keys=keys)

    def with_values(self, values: dict[str, tuple[int, str]]) -> Any:
        """Return the output with a value in a row of some columns, in whatever way their types have room."""
        changed = self.masked
        for column, (row, value) in values.items():
            field = changed.schema.field(column)
            cells = changed[column].to_pylist()
            cells[row] = _held(field.type, cells[row], value)
            index = changed.schema.get_field_index(column)
            changed = changed.set_column(index, field, pa.array(cells, field.type))
        return changed


def _held(kind: Any, cell: Any, value: str) -> Any:
    if pa.types.is_integer(kind):
        return int("".join(filter(str.isdigit, value))[:18] or 0)
    if pa.types.is_list(kind):
        return [*cell, value]
    if pa.types.is_struct(kind):
        return {**cell, "mail": value}
    if isinstance(cell, str) and cell.startswith("{"):
        return json.dumps({**json.loads(cell), "tags": [value]})
    return f"{cell} {value}"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, scanner: Scanner) -> Case:
    return Case(tmp_path_factory.mktemp("verify"), scanner)


TEXT_COLUMNS = (
    "full_name", "email", "phone", "ssn", "credit_card", "iban", "ip", "city", "address", "status", "notes",
    "payload", "tags", "person",
)  # fmt: skip


def test_what_was_masked_by_its_plan_is_verified(case: Case) -> None:
    report = case.verify(case.masked)
    assert report.verified, (report.leaks, report.broken)


@pytest.mark.parametrize("origin", PERSONAL)
def test_a_value_that_is_put_back_into_any_column_is_found_there(case: Case, origin: str) -> None:
    value = next(cell for cell in case.source[origin].to_pylist()[ORIGIN:] if cell)
    put = {column: (row, value) for row, column in enumerate(TEXT_COLUMNS)}
    if value.replace("-", "").isdigit():
        put["customer_id"] = ROWS - 1, value
    report = case.verify(case.with_values(put))
    assert not report.verified
    found = {(leak.column, row) for leak in report.leaks for row in leak.rows}
    assert found >= {(column, row) for column, (row, _) in put.items()}
    assert set(report.columns) == set(put)


def test_a_time_that_was_changed_is_found(case: Case) -> None:
    index = case.masked.schema.get_field_index("created_at")
    times = case.masked["created_at"].to_pylist()
    times[3] = datetime(1999, 1, 1)  # noqa: DTZ001  # the column has no zone
    field = case.masked.schema.field("created_at")
    report = case.verify(case.masked.set_column(index, field, pa.array(times, field.type)))
    assert [(leak.column, leak.rows) for leak in report.leaks] == [("created_at", (3,))]
