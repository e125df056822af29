from __future__ import annotations

import multiprocessing
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest

from airflow_approvals.core.errors import CellTooLongError, ModelMissingError, SchemaMismatchError
from airflow_approvals.pii.cells import Gate, text_of, texts_of_batch
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.findings import BatchFindings, Finding
from airflow_approvals.pii.report import Tally
from airflow_approvals.pii.scanner import Scanner
from tests.pii.customers import customers


def _found(scanner: Scanner, **columns: Any) -> list[Finding]:
    batch = pa.record_batch({name: pa.array(values) for name, values in columns.items()})
    return [finding for batch in scanner.scan_batches([batch]) for finding in batch.findings]


TEXTS: dict[str, tuple[Any, str | None, Gate]] = {
    "text": ("x", "x", Gate.ANYTHING),
    "null": (None, None, Gate.ANYTHING),
    "bool": (True, None, Gate.ANYTHING),
    "integer": (123, "123", Gate.NUMBERED),
    "integer beyond 2^53": (2**60 + 1, "1152921504606846977", Gate.NUMBERED),
    "float": (1.5, "1.5", Gate.NUMBERED),
    "whole float": (4111111111111111.0, "4111111111111111", Gate.NUMBERED),
    "NaN": (float("nan"), None, Gate.NUMBERED),
    "infinity": (float("inf"), None, Gate.NUMBERED),
    "decimal": (Decimal("1.50"), "1.50", Gate.NUMBERED),
    "date": (date(2020, 1, 2), "2020-01-02", Gate.TEMPORAL),
    "timestamp": (datetime(2020, 1, 2, 3, 4), "2020-01-02 03:04:00", Gate.TEMPORAL),  # noqa: DTZ001
    "bytes of UTF-8": (b"x", "x", Gate.ANYTHING),
    "other bytes": (b"\xff\xfe", None, Gate.ANYTHING),
}


@pytest.mark.parametrize(("value", "text", "gate"), TEXTS.values(), ids=TEXTS.keys())
def test_every_type_has_one_text_or_none(value: Any, text: str | None, gate: Gate) -> None:
    found, found_gate = text_of(value)
    assert found == text
    assert found_gate is gate or text is None


def test_integers_are_neither_dates_nor_persons_but_may_be_cards(scanner: Scanner) -> None:
    ids = _found(scanner, customer_id=list(range(100_000, 100_050)))
    assert not {finding.entity_type for finding in ids} & {"DATE_TIME", "PERSON", "LOCATION", "NRP"}
    cards = _found(scanner, paid_with=[4111111111111111, 5])
    assert ("CREDIT_CARD", 0) in {(finding.entity_type, finding.row) for finding in cards}


def test_nulls_and_nans_are_not_texts(scanner: Scanner) -> None:
    assert _found(scanner, name=pa.array([None, None], pa.string()), n=[float("nan"), None]) == []


def test_times_are_dates_and_nothing_else(scanner: Scanner) -> None:
    times = pa.array([datetime(2021, 7, 16, 1, 35), None], pa.timestamp("ns", tz="UTC"))  # noqa: DTZ001
    assert {finding.entity_type for finding in _found(scanner, created_at=times)} == {"DATE_TIME"}


def test_leaves_of_nested_columns_are_found_with_their_path(scanner: Scanner) -> None:
    people = [{"contact": {"mails": ["a@example.com", None, "b@example.com"]}, "age": 5}, None, {}]
    found = [finding for finding in _found(scanner, person=people) if finding.entity_type == "EMAIL_ADDRESS"]
    assert [(one.row, one.path) for one in found] == [(0, "/contact/mails/0"), (0, "/contact/mails/2")]


def test_keys_of_maps_are_data(scanner: Scanner) -> None:
    by_mail = pa.array([[("a@example.com", 1)]], pa.map_(pa.string(), pa.int64()))
    found = _found(scanner, visits=by_mail)
    assert ("EMAIL_ADDRESS", "/0/0", True) in {(one.entity_type, one.path, one.leaf_key) for one in found}


def test_dictionary_columns_are_their_values(scanner: Scanner) -> None:
    mails = pa.array(["a@example.com", None, "a@example.com"]).dictionary_encode()
    found = [one.row for one in _found(scanner, mail=mails) if one.entity_type == "EMAIL_ADDRESS"]
    assert found == [0, 2]


def test_what_has_no_text_is_counted_as_skipped() -> None:
    batch = pa.record_batch({"blob": pa.array([b"\xff", b"ok", None])})
    (texts,) = texts_of_batch(batch)
    assert (texts.scanned, texts.nulls, texts.skipped) == (1, 1, 1)


DISGUISES = {
    "full-width digits": "SSN \uff15\uff13\uff16-\uff19\uff10-\uff14\uff13\uff19\uff19 ok",
    "zero-width spaces": "SSN 5\u200b36-90\u200b-4399 ok",
    "typographic dashes": "SSN 536\u201390\u20134399 ok",
    "Arabic digits": "SSN \u0665\u0663\u0666-\u0669\u0660-\u0664\u0663\u0669\u0669 ok",
}


@pytest.mark.parametrize("text", DISGUISES.values(), ids=DISGUISES.keys())
def test_numbers_in_disguise_are_found_where_they_stand_and_marked(scanner: Scanner, text: str) -> None:
    (found,) = scanner.scan_cells("note", [text])
    (number,) = [finding for finding in found if finding.entity_type == "US_SSN"]
    assert number.normalised
    assert text[number.start : number.end] == text[4:-3]


@pytest.mark.parametrize("text", DISGUISES.values(), ids=DISGUISES.keys())
def test_without_the_marked_findings_the_rest_is_presidios(scanner: Scanner, text: str) -> None:
    (found,) = scanner.scan_cells("note", [text])
    exact = {tuple(finding.span) for finding in found if not finding.normalised}
    results = scanner.analyzer.analyze(text, "en", context=["note"])
    assert exact == {(one.entity_type, one.start, one.end, one.score) for one in results}


def test_a_cell_that_is_too_long_is_named_by_column_and_row(scanner: Scanner) -> None:
    with pytest.raises(CellTooLongError, match=r"column 'note', row 1 .the first is 0.: 1000001 characters"):
        _found(scanner, note=["x", "a" * 1_000_001])


def test_columns_of_one_name_are_refused(scanner: Scanner) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    with pytest.raises(SchemaMismatchError, match=r"\['a'\]"):
        list(scanner.scan_batches([batch]))


def test_a_model_that_is_not_installed_is_named_and_never_downloaded() -> None:
    with pytest.raises(ModelMissingError, match="en_core_web_none"):
        _ = Scanner(ScanConfig(model="en_core_web_none")).analyzer


def test_five_thousand_columns_and_no_rows_are_handled(scanner: Scanner) -> None:
    wide = pa.record_batch({f"c{number}": pa.array(["x"]) for number in range(5_000)})
    (found,) = scanner.scan_batches([wide.slice(0, 1)])
    assert len(found.columns) == 5_000
    assert list(scanner.scan_batches([wide.slice(0, 0)])) == []


def _scan(workers: int) -> list[BatchFindings]:
    scanner = Scanner(ScanConfig(workers=workers, batch_rows=20))
    return list(scanner.scan_batches(customers(90, seed=8).to_batches()))


def test_workers_find_the_same_in_the_same_order_even_when_one_is_killed() -> None:
    alone = _scan(1)
    scanner = Scanner(ScanConfig(workers=2, batch_rows=20))
    found: list[BatchFindings] = []
    for batch in scanner.scan_batches(customers(90, seed=8).to_batches()):
        if not found:
            multiprocessing.active_children()[0].kill()
        found.append(batch)
    assert found == alone
    assert multiprocessing.active_children() == []
    assert Tally().add_all(found).rows == 90


def test_an_error_of_a_worker_is_raised_by_its_name() -> None:
    scanner = Scanner(ScanConfig(workers=2, model="en_core_web_none"))
    with pytest.raises(ModelMissingError):
        list(scanner.scan_batches(customers(5).to_batches()))
