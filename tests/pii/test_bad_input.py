# ruff: noqa: E501  # tables read best with one case a line
"""Bad input is handled, or refused by file, row and column: never skipped without a word, never a value told."""

from __future__ import annotations

import datetime
import decimal
import logging
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest
from pyarrow import parquet  # noqa: TID253

from airflow_approvals.core.errors import (
    ApprovalsError,
    CellTooLongError,
    ConfigurationError,
    InvalidRequestError,
    ModelMissingError,
    SchemaMismatchError,
    SourceEmptyError,
    SourceMissingError,
    SourceUnreadableError,
)
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.masking.datasets import mask_dataset
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import Redact, Replace
from airflow_approvals.pii.masking.reading import DatasetReader, columns_of
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.scan_datasets import DatasetScan, plan_dataset, scan_dataset
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.verify_datasets import verify_masked
from airflow_approvals.staging.locations import locate
from tests.pii.mask_samples import PatternFinder

CANARY = "canary.7f3a@example.com"
C = CANARY.encode()
FIFTY_MB = b"x y" * (50 * 1024 * 1024 // 3)


def parquet_bytes(columns: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def two_of_a_name() -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_arrays([pa.array([CANARY])] * 2, names=["a", "a"]), sink)
    return bytes(sink.getvalue())


Case = tuple[str, Callable[[], bytes], type[ApprovalsError], str]
REFUSED: dict[str, Case] = {
    "no bytes": ("x.csv", lambda: b"", SourceEmptyError, "x.csv: holds no bytes"),
    "header only": ("x.csv", lambda: b"a,b\n", SourceEmptyError, "x.csv: holds no rows"),
    "no rows in parquet": ("x.parquet", lambda: parquet_bytes({"a": pa.array([], pa.string())}), SourceEmptyError, "x.parquet: holds no rows"),
    "ragged row": ("x.csv", lambda: b"a,b\n" + C + b",1\n" + C + b"\n", SourceUnreadableError, "x.csv: row 3 has 1 fields, expected 2"),
    "two columns of a name": ("x.csv", lambda: b"a,b,a\n1," + C + b",3\n", SourceUnreadableError, "x.csv: columns 1 and 3 have the same name"),
    "two columns of a name, parquet": ("x.parquet", two_of_a_name, SourceUnreadableError, "x.parquet: columns 1 and 2"),
    "two encodings in a file": ("x.csv", lambda: b"a\nZo\xc3\xab\n" + C + b"\xeb\n", SourceUnreadableError, "x.csv: line 3 holds bytes that are not UTF-8"),
    "UTF-16": ("x.csv", lambda: f"a\n{CANARY}\n".encode("utf-16"), SourceUnreadableError, "x.csv: line 1"),
    "binary in text": ("x.jsonl", lambda: b'{"a": "ok"}\n{"a": "\x80' + C + b'"}\n', SourceUnreadableError, "x.jsonl: line 2 holds bytes"),
    "NUL": ("x.csv", lambda: b"a\nok\n" + C + b"\0\n", SourceUnreadableError, "x.csv: line 3 holds a NUL byte"),
    "semicolons": ("x.csv", lambda: b"id;name\n1;" + C + b"\n", SourceUnreadableError, "x.csv: row 1 is one column with ';' in its name"),
    "a year beyond all dates": ("x.parquet", lambda: parquet_bytes({"a": pa.array([0, 2**30], pa.date32())}), SourceUnreadableError, "x.parquet: column 'a', row 1 .the first is 0.: holds a date"),
    "a nested year beyond all dates": ("x.parquet", lambda: parquet_bytes({"a": pa.array([{"t": 0}, {"t": 2**62}], pa.struct([("t", pa.timestamp("us"))]))}), SourceUnreadableError, "x.parquet: column 'a', row 1 "),
    "two fields of a name": ("x.parquet", lambda: parquet_bytes({"a": pa.StructArray.from_arrays([pa.array([CANARY])] * 2, names=["m", "m"])}), SourceUnreadableError, "x.parquet"),
    "a number beyond all doubles": ("x.jsonl", lambda: b'{"a": 1}\n{"a": 1e400, "b": "' + C + b'"}\n', SourceUnreadableError, "x.jsonl: row 1 .the first is 0., column 'a' holds .*number"),
    "half a character": ("x.jsonl", lambda: b'{"a": "ok"}\n{"a": {"b": "\\ud800' + C + b'"}}\n', SourceUnreadableError, "x.jsonl: row 1 .the first is 0., column 'a' holds half a character"),
    "50 MB cell, csv": ("x.csv", lambda: b'a,b\n1,"' + FIFTY_MB + b'"\n', SourceUnreadableError, "x.csv: cannot be parsed after row 1, or a row is longer"),
    "50 MB cell, json lines": ("x.jsonl", lambda: b'{"a": 1}\n{"a": "' + FIFTY_MB + b'"}\n', SourceUnreadableError, "x.jsonl: line 2 is longer"),
    "50 MB cell, parquet": ("x.parquet", lambda: parquet_bytes({"a": ["x", CANARY + FIFTY_MB.decode()]}), CellTooLongError, "x.parquet: column 'a', row 1 .the first is 0.: 524288"),
    "long leaf": ("x.parquet", lambda: parquet_bytes({"a": [{"b": ["x"]}, {"b": [CANARY * 50_000]}]}), CellTooLongError, "x.parquet: column 'a', row 1 "),
    "no such format": ("x.xlsx", lambda: C, SourceUnreadableError, "x.xlsx: the name does not tell the format"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_scanned_is_refused_by_name_and_without_its_values(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    scanner: Scanner,
    name: str,
    make: Callable[[], bytes],
    error: type[ApprovalsError],
    words: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / name).write_bytes(make())

    with pytest.raises(error, match=words) as caught:
        scan_dataset(str(tmp_path / name), scanner)

    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    assert CANARY not in shown
    assert not list(tmp_path.glob(".*"))


TEXT = MaskingRules(columns=(ColumnRule(column="a", treatment=Treatment.TEXT),))
UNMASKABLE: dict[str, tuple[str, Callable[[], bytes], MaskingRules, type[ApprovalsError], str]] = {
    "a text too long to search": ("x.parquet", lambda: parquet_bytes({"a": ["x"] * 3 + [CANARY * 50_000]}), TEXT, CellTooLongError, "x.parquet: column 'a', row 3 "),
    "half a character": ("x.jsonl", lambda: b'{"a": "\\ud800' + C + b'"}\n', TEXT, SourceUnreadableError, "x.jsonl: row 0 .the first is 0., column 'a'"),
    "bytes as text": ("x.parquet", lambda: parquet_bytes({"a": [b"\xff" + C]}), TEXT, SourceUnreadableError, "x.parquet: column 'a', row 0 .the first is 0.: holds bytes that are no text"),
    "bytes where none are read": ("x.parquet", lambda: parquet_bytes({"a": pa.array([None], pa.binary())}), TEXT, InvalidRequestError, "x.parquet: column 'a' is binary"),
    "bytes in a leaf": ("x.parquet", lambda: parquet_bytes({"a": [None, [b"\xff" + C]]}), MaskingRules(columns=(ColumnRule(column="a", treatment=Treatment.LEAVES),)), SourceUnreadableError, "x.parquet: column 'a', row 1 .the first is 0.: holds bytes"),
    "a year beyond all dates": ("x.parquet", lambda: parquet_bytes({"a": pa.array([0, 2**30], pa.date32())}), MaskingRules(columns=(ColumnRule(column="a", treatment=Treatment.CELL, entity_type="DATE_TIME", operator=Replace(), becomes="string"),)), SourceUnreadableError, "x.parquet: column 'a', row 1 "),
    "a number beyond all doubles": ("x.jsonl", lambda: b'{"a": 1e400, "b": 1}\n', TEXT, SourceUnreadableError, "x.jsonl: row 0 .the first is 0., column 'a'"),
    "a single column with a null": ("x.csv", lambda: b"a,b\n,1\nx,2\n", MaskingRules(columns=(*TEXT.columns, ColumnRule(column="b", treatment=Treatment.DROP))), InvalidRequestError, "x.csv: column 'a' is all that is left"),
    "an operator for a type that is none": ("x.csv", lambda: b"a\n" + C + b"\n", MaskingRules(columns=(ColumnRule(column="a", treatment=Treatment.TEXT, by_entity={"EMIAL": Redact()}),)), InvalidRequestError, "column 'a': by_entity: no recognizer finds EMIAL"),
    "a column without a rule": ("x.csv", lambda: b"a," + C + b"\n1,2\n", TEXT, SchemaMismatchError, "x.csv: columns without a masking rule: numbers .2."),
    "a key without a rule": ("x.jsonl", lambda: b'{"a": "x", "' + C + b'": 1}\n', TEXT, SchemaMismatchError, "x.jsonl: 1 keys of the objects have no masking rule"),
    "nothing there": ("", lambda: b"", TEXT, SourceMissingError, "nothing is there"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make", "rules", "error", "words"), UNMASKABLE.values(), ids=UNMASKABLE.keys()
)
def test_what_cannot_be_masked_is_refused_and_leaves_nothing_behind(
    tmp_path: Path,
    name: str,
    make: Callable[[], bytes],
    rules: MaskingRules,
    error: type[ApprovalsError],
    words: str,
) -> None:
    source = tmp_path / "in" / name
    (tmp_path / "in").mkdir()
    if name:
        source.write_bytes(make())

    with pytest.raises(error, match=words) as caught:
        mask_dataset(str(source), str(tmp_path / "out" / (name or "x")), rules, KeyRing(), PatternFinder())

    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


Found = dict[str, set[str]]
HANDLED: dict[str, tuple[str, Callable[[], bytes], Found]] = {
    "a key twice in JSON text": ("x.csv", lambda: b'a,b\n"{""m"": ""' + C + b'"", ""m"": ""x""}",1\n', {"a": {"EMAIL_ADDRESS"}, "b": set()}),
    "a key twice in a few JSON texts": ("x.csv", lambda: b'a,b\n' + b'"{""m"": ""x""}",1\n' * 30 + b'"{""m"": ""' + C + b'"", ""m"": ""x""}",1\n', {"a": {"EMAIL_ADDRESS"}, "b": set()}),
    "a number beyond all doubles in JSON text": ("x.csv", lambda: b'a,b\n' + b'"{""m"": ""x""}",1\n' * 30 + b'"{""m"": ""' + C + b'"", ""n"": 1e400}",1\n', {"a": {"EMAIL_ADDRESS"}, "b": set()}),
    "byte order mark": ("x.csv", lambda: b"\xef\xbb\xbfa\n" + C + b"\n", {"a": {"EMAIL_ADDRESS"}}),
    "no line end at the end": ("x.csv", lambda: b"a\nx\n" + C, {"a": {"EMAIL_ADDRESS"}}),
    "line ends in quotes": ("x.csv", lambda: b'a,b\n"x\r\n' + C + b'",1\n', {"a": {"EMAIL_ADDRESS"}, "b": set()}),
    "NUL in parquet": ("x.parquet", lambda: parquet_bytes({"a": ["x\0" + CANARY]}), {"a": {"EMAIL_ADDRESS"}}),
    "nested": ("x.parquet", lambda: parquet_bytes({"a": [{"b": [{"c": CANARY, "n": 1}]}, None]}), {"a": {"EMAIL_ADDRESS"}}),
    "a map": ("x.parquet", lambda: parquet_bytes({"a": pa.array([[(CANARY, 1)], None], pa.map_(pa.string(), pa.int8()))}), {"a": {"EMAIL_ADDRESS"}}),
    "400 levels deep": ("x.jsonl", lambda: b'{"a": ' + b'{"x": ' * 400 + b'"' + C + b'"' + b"}" * 400 + b"}\n", {"a": {"EMAIL_ADDRESS"}}),
    "several types in a column": ("x.jsonl", lambda: b'{"a": 1}\n{"a": [2.5]}\n{"a": "' + C + b'"}\n', {"a": {"EMAIL_ADDRESS"}}),
    "numbers beyond 64 bits": ("x.jsonl", lambda: b'{"a": 123456789012345678901234567890}\n{"a": "' + C + b'"}\n', {"a": {"EMAIL_ADDRESS", "DATE_TIME"}}),
    "timestamps": ("x.parquet", lambda: parquet_bytes({"a": pa.array([1, None, 10**18], pa.timestamp("ns", tz="UTC"))}), {"a": {"DATE_TIME"}}),
    "dates": ("x.parquet", lambda: parquet_bytes({"a": [datetime.date(1984, 5, 3), None]}), {"a": {"DATE_TIME"}}),
    "decimals": ("x.parquet", lambda: parquet_bytes({"a": [decimal.Decimal("4111111111111111"), None]}), {"a": {"CREDIT_CARD"}}),
    "integers beyond 2^53": ("x.parquet", lambda: parquet_bytes({"a": pa.array([2**63 - 1, 4111111111111111], pa.int64())}), {"a": {"CREDIT_CARD"}}),
    "integers that came as floats": ("x.parquet", lambda: parquet_bytes({"a": [4111111111111111.0, math.nan]}), {"a": {"CREDIT_CARD"}}),
    "NaN, infinity and null": ("x.parquet", lambda: parquet_bytes({"a": [math.nan, math.inf, None], "b": ["", None, ""]}), {"a": set(), "b": set()}),
    "decimals of a database": ("x.parquet", lambda: parquet_bytes({"a": pa.array([decimal.Decimal("4111111111111111"), None], pa.decimal128(38, 10))}), {"a": {"CREDIT_CARD"}}),
    "400 digits": ("x.jsonl", lambda: b'{"a": "' + C + b'"}\n{"a": ' + b"1" * 400 + b"}\n", {"a": {"EMAIL_ADDRESS"}}),
    "the end of time": ("x.parquet", lambda: parquet_bytes({"a": pa.array([253402300799, None], pa.timestamp("s", tz="Asia/Tokyo"))}), {"a": {"DATE_TIME"}}),
    "a time zone of nobody": ("x.parquet", lambda: parquet_bytes({"a": pa.array([1, None], pa.timestamp("us", tz="Mars/Base"))}), {"a": {"DATE_TIME"}}),
    "UUIDs": ("x.parquet", lambda: parquet_bytes({"a": pa.array([bytes.fromhex("f47ac10b58cc4372a5670e02b2c3d479")] * 3, pa.uuid())}), {"a": {"UUID"}}),
    "full-width digits": ("x.csv", lambda: "a\n\uff15\uff13\uff16-\uff19\uff10-\uff14\uff13\uff19\uff19\n".encode(), {"a": {"US_SSN"}}),
    "zero-width characters": ("x.csv", lambda: "a\n4111\u200b1111\u200b1111\u200b1111\n".encode(), {"a": {"CREDIT_CARD"}}),
    "texts in a dictionary": ("x.parquet", lambda: parquet_bytes({"a": pa.array([CANARY, None]).dictionary_encode()}), {"a": {"EMAIL_ADDRESS"}}),
    "bytes that are text": ("x.parquet", lambda: parquet_bytes({"a": [C, None]}), {"a": {"EMAIL_ADDRESS"}}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make", "expected"), HANDLED.values(), ids=HANDLED.keys())
def test_what_looks_odd_is_scanned_planned_masked_and_verified(
    tmp_path: Path, scanner: Scanner, name: str, make: Callable[[], bytes], expected: Found
) -> None:
    source, masked = tmp_path / name, tmp_path / f"masked-{name}"
    source.write_bytes(make())

    found = scan_dataset(str(source), scanner)
    rules = plan_dataset(str(source), scanner).rules()
    made = mask_dataset(str(source), str(masked), rules, KeyRing(), scanner)
    report = verify_masked(str(source), str(masked), rules, scanner, known=made.known)

    assert strong_types(found) == expected
    assert all(column.skipped == 0 for column in found.report.columns)
    report.check()
    assert made.snapshot.rows == found.report.rows
    if any(expected.values()):
        assert CANARY.encode() not in masked.read_bytes()


def strong_types(found: DatasetScan) -> Found:
    return {
        column.column: {one.entity_type for one in column.entities if one.score_max >= 0.5} - {"URL"}
        for column in found.report.columns
    }


def test_bytes_that_are_no_text_are_counted_and_the_plan_drops_them(tmp_path: Path, scanner: Scanner) -> None:
    source = tmp_path / "x.parquet"
    source.write_bytes(parquet_bytes({"a": [b"\xff\xfe", None, b"\x80"], "b": ["x", "y", "z"]}))
    (blobs, _) = scan_dataset(str(source), scanner).report.columns
    assert (blobs.scanned, blobs.nulls, blobs.skipped) == (0, 1, 2)
    plan = plan_dataset(str(source), scanner)
    assert plan.columns[0].treatment is Treatment.DROP
    assert "2 of 2 sampled ones no text" in plan.columns[0].because


def test_a_card_among_numbers_that_are_left_alone_does_not_pass(tmp_path: Path, scanner: Scanner) -> None:
    source, masked = tmp_path / "x.parquet", tmp_path / "y.parquet"
    source.write_bytes(parquet_bytes({"n": [*range(40), 4111111111111111, *range(2125550100, 2125550104)]}))
    plan = plan_dataset(str(source), scanner)
    assert plan.columns[0].treatment is Treatment.LEAVE
    mask_dataset(str(source), str(masked), plan.rules(), KeyRing(), scanner)
    report = verify_masked(str(source), str(masked), plan.rules(), scanner)
    assert [(leak.column, leak.entity_type, leak.rows) for leak in report.leaks] == [
        ("n", "CREDIT_CARD", (40,))
    ]


def test_fractions_with_the_check_digit_of_a_card_are_no_cards(tmp_path: Path, scanner: Scanner) -> None:
    source, masked = tmp_path / "x.parquet", tmp_path / "y.parquet"
    source.write_bytes(parquet_bytes({"n": [number / 7 for number in range(100)]}))
    plan = plan_dataset(str(source), scanner)
    mask_dataset(str(source), str(masked), plan.rules(), KeyRing(), scanner)
    assert verify_masked(str(source), str(masked), plan.rules(), scanner).leaks == ()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_part_without_rows_is_masked_into_one_without_rows(
    tmp_path: Path, scanner: Scanner, suffix: str
) -> None:
    source, masked = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    rows = {"a": [CANARY, None], "b": ["x", "y"]}
    written: dict[str, Callable[[list[int]], bytes]] = {
        "csv": lambda kept: b"a,b\n" + b"".join((C + b",x\n", b",y\n")[row] for row in kept),
        "parquet": lambda kept: parquet_bytes(dict(pa.table(rows).take(kept).to_pydict()) if kept else {name: pa.array([], pa.string()) for name in rows}),
        "jsonl": lambda kept: b"\n" + b"".join((b'{"a":"' + C + b'"}\n', b'{"b":"y"}\n')[row] for row in kept),
    }  # fmt: skip
    for number, kept in enumerate([[], [0, 1], []]):
        (source / f"part-{number}.{suffix}").write_bytes(written[suffix](kept))

    rules = plan_dataset(str(source), scanner).rules()
    made = mask_dataset(str(source), str(masked), rules, KeyRing(), scanner)
    verify_masked(str(source), str(masked), rules, scanner).check()
    assert made.snapshot.rows == 2
    assert len(made.snapshot.files) == 3


WIDE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "parquet": ("x.parquet", lambda: parquet_bytes({f"n{number}": [1] * 2_000 for number in range(1_000)})),
    "sparse json lines": ("x.jsonl", lambda: b'{"n0": 1}\n' * 2_000 + b'{"n1": 1}\n' * 2_000),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make"), WIDE.values(), ids=WIDE.keys())
def test_rows_of_wide_tables_are_in_memory_a_few_at_a_time(
    tmp_path: Path, name: str, make: Callable[[], bytes]
) -> None:
    (tmp_path / name).write_bytes(make())
    names = [f"n{number}" for number in range(1_000)]
    leave = (ColumnRule(column=name, treatment=Treatment.LEAVE, leave_entities=("*",)) for name in names)
    rules = MaskingRules(columns=tuple(leave))
    sizes = [
        sum(map(len, columns_of(batch, rules).values()))
        for batch in DatasetReader(locate(str(tmp_path / name)), rules=rules).batches()
    ]
    assert sum(sizes) == len(names) * (2_000 if name == "x.parquet" else 4_000)
    assert max(sizes) <= 250_000

    made = mask_dataset(str(tmp_path / name), str(tmp_path / f"y-{name}"), rules, KeyRing(), PatternFinder())
    assert made.snapshot.rows == sum(sizes) / len(names)
    if name == "x.parquet":
        assert parquet.ParquetFile(tmp_path / f"y-{name}").num_row_groups <= 3


def test_five_thousand_columns_are_scanned_and_masked(tmp_path: Path, scanner: Scanner) -> None:
    source, masked = tmp_path / "x.parquet", tmp_path / "y.parquet"
    columns: dict[str, Any] = {f"n{number}": [number, None] for number in range(4_999)}
    source.write_bytes(parquet_bytes({**columns, "mail": [None, CANARY]}))
    found = scan_dataset(str(source), scanner)
    assert len(found.report.columns) == 5_000
    assert found.report.columns[-1].cells_with_findings == 1
    leave = (ColumnRule(column=name, treatment=Treatment.LEAVE, leave_entities=("*",)) for name in columns)
    rules = MaskingRules(columns=(*leave, ColumnRule(column="mail", treatment=Treatment.TEXT)))
    made = mask_dataset(str(source), str(masked), rules, KeyRing(), PatternFinder())
    assert [column.name for column in made.snapshot.columns] == [*columns, "mail"]
    verify_masked(str(source), str(masked), rules, PatternFinder(), known=made.known).check()


NO_MODEL: dict[str, tuple[dict[str, Any], str, type[ApprovalsError], str]] = {
    "a model that is not installed": ({"model": "en_core_web_nowhere"}, "", ModelMissingError, "en_core_web_nowhere.*never downloads"),
    "an engine that downloads": ({}, "nlp_engine_name: stanza\nmodels: [{lang_code: en, model_name: en}]\n", ConfigurationError, "stanza.*offline"),
    "a configuration that is no YAML": ({}, "a: [", ConfigurationError, "cannot be read as YAML"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "nlp", "error", "words"), NO_MODEL.values(), ids=NO_MODEL.keys())
def test_a_model_that_is_missing_or_wants_the_network_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    nlp: str,
    error: type[ApprovalsError],
    words: str,
) -> None:
    source = tmp_path / "x.csv"
    source.write_text(f"a\n{CANARY}\n")
    if nlp:
        (tmp_path / "nlp.yaml").write_text(nlp)
        settings = {**settings, "nlp_conf": tmp_path / "nlp.yaml"}

    def refuse(*args: object) -> None:
        pytest.fail("a scan looked for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    with pytest.raises(error, match=words):
        scan_dataset(str(source), Scanner(ScanConfig(**settings)))


def test_the_list_of_domains_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        pytest.fail("a scan looked for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    source = tmp_path / "x.csv"
    source.write_text(f"a\n{CANARY}\n")
    assert strong_types(scan_dataset(str(source), Scanner())) == {"a": {"EMAIL_ADDRESS"}}
