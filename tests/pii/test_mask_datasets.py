from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest
from pyarrow import csv as pacsv  # noqa: TID253
from pyarrow import parquet  # noqa: TID253

from airflow_approvals.core.errors import (
    ConfigurationError,
    DatasetError,
    DestinationError,
    InvalidRequestError,
    SchemaMismatchError,
    SourceChangedError,
    SourceEmptyError,
    VerificationError,
)
from airflow_approvals.core.model import to_json
from airflow_approvals.pii.cells import Gate
from airflow_approvals.pii.masking import datasets
from airflow_approvals.pii.masking.datasets import MaskedDataset, mask_dataset
from airflow_approvals.pii.masking.finished import WaitingDataset
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.operators import Fake, Pseudonym, Replace
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.verify_datasets import verify_located, verify_masked
from airflow_approvals.pii.verify_report import Found
from airflow_approvals.staging.locations import locate
from airflow_approvals.staging.snapshot import snapshot, take_snapshot
from tests.pii.mask_samples import KEYS, PatternFinder
from tests.staging.samples import COMPRESS

ROWS = 400
RULES = MaskingRules(
    columns=(
        ColumnRule(column="id", treatment=Treatment.LEAVE),
        ColumnRule(
            column="name",
            treatment=Treatment.CELL,
            entity_type="PERSON",
            operator=Pseudonym(domain="customers"),
        ),
        ColumnRule(
            column="phone",
            treatment=Treatment.CELL,
            entity_type="PHONE_NUMBER",
            operator=Fake(domain="customers"),
        ),
        ColumnRule(column="note", treatment=Treatment.TEXT),
        ColumnRule(column="payload", treatment=Treatment.LEAVES),
        ColumnRule(column="gone", treatment=Treatment.DROP, entity_type="PASSWORD"),
    )
)
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.zst", ".jsonl", ".jsonl.gz", ".jsonl.bz2", ".jsonl.xz")


def person(number: int) -> dict[str, Any]:
    other = (number * 7 + 3) % ROWS
    return {
        "id": str(number),
        "name": None if number % 11 == 0 else f"Canary Person{number:05d}",
        "phone": f"+1 212 555 {number:04d}",
        "note": None
        if number % 5 == 0
        else f'Said "hello" to canary PERSON{other:05d},\nthen x{number}@canary.org',
        "payload": json.dumps({"to": [f"y{number}@canary.org"], "n": number}),
        "gone": "",
    }


def write(path: Path, rows: range = range(ROWS)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    people = [person(number) for number in rows]
    schema = pa.schema([(name, pa.string()) for name in people[0]])
    table = pa.Table.from_pylist(people, schema=schema)
    kind, packed = (*path.name.split(".")[1:], "")[:2]
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=150)
        return path
    if kind == "csv":
        sink = pa.BufferOutputStream()
        pacsv.write_csv(table, sink)
        data = sink.getvalue().to_pybytes()
    else:
        data = "".join(json.dumps(one) + "\n" for one in people).encode()
    path.write_bytes(COMPRESS[f".{packed}" if packed else ""](data))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    from airflow_approvals.pii.masking.reading import DatasetReader
    from airflow_approvals.staging.locations import locate

    rows: list[dict[str, Any]] = []
    for batch in DatasetReader(locate(str(path))).batches():
        rows += batch if isinstance(batch, list) else batch.to_pylist()
    return rows


def mask(source: Path, destination: Path, rules: MaskingRules = RULES) -> MaskedDataset:
    return mask_dataset(str(source), str(destination), rules, KEYS, PatternFinder())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_dataset_is_masked_in_its_format_and_verified(tmp_path: Path, suffix: str) -> None:
    source, destination = write(tmp_path / f"in{suffix}"), tmp_path / "out" / f"out{suffix}"
    made = mask(source, destination)
    assert made.snapshot == snapshot(str(destination))
    assert made.snapshot.rows == made.report.rows == ROWS
    assert made.report.source_sha256 == snapshot(str(source)).sha256
    assert made.report.dropped == ("gone",)
    before, after = read(source), read(destination)
    assert [row["id"] for row in after] == [row["id"] for row in before]
    assert [[value is None for value in row.values()] for row in after] == [
        [value is None for name, value in row.items() if name != "gone"] for row in before
    ]
    assert "canary" not in json.dumps(after).lower()
    assert "canary" not in json.dumps(to_json(made.report)).lower()
    for keys in (KEYS, None):
        report = verify_masked(
            str(source), str(destination), RULES, PatternFinder(), keys=keys, known=made.known
        )
        leaks = [leak for leak in report.leaks if leak.column != "phone" or keys]
        assert leaks == []
        assert report.broken == ()
        assert report.rows == ROWS


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl.gz"])
def test_masking_twice_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"in{suffix}", range(50))
    digests = {mask(source, tmp_path / f"{number}{suffix}").snapshot.sha256 for number in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_folder_is_masked_part_by_part(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "in" / f"b{suffix}", range(10))
    write(tmp_path / "in" / "day=1" / f"a{suffix}", range(10, 30))
    made = mask(tmp_path / "in", tmp_path / "out")
    assert [file.name for file in made.snapshot.files] == [f"b{suffix}", f"day=1/a{suffix}"]
    report = verify_masked(str(tmp_path / "in"), str(tmp_path / "out"), RULES, PatternFinder(), keys=KEYS)
    assert report.verified


Edit = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
EDITS: dict[str, tuple[Edit, str]] = {
    "a row lost": (lambda rows: rows[:-1], "lacks 1 rows"),
    "a row more": (lambda rows: [*rows, rows[0]], "has 1 of its own"),
    "a column more": (lambda rows: [{**row, "gone": "x"} for row in rows], "columns of the output"),
    "two rows swapped": (lambda rows: [rows[1], rows[0], *rows[2:]], ""),
    "a value put back": (lambda rows: [{**rows[0], "note": "canary  person00007"}, *rows[1:]], ""),
    "a value as a key": (
        lambda rows: [{**rows[0], "x7@canary.org": "x"}, *rows[1:]],
        "columns of the output",
    ),
}


@pytest.mark.parametrize(("edit", "sentence"), EDITS.values(), ids=EDITS.keys())
def test_an_output_that_was_changed_afterwards_does_not_pass(
    tmp_path: Path, edit: Edit, sentence: str
) -> None:
    source = write(tmp_path / "in.jsonl", range(30))
    mask(source, tmp_path / "out.jsonl")
    rows = edit(read(tmp_path / "out.jsonl"))
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = verify_masked(str(source), str(tmp_path / "out.jsonl"), RULES, PatternFinder(), keys=KEYS)
    assert not report.verified
    assert any(sentence in broken for broken in report.broken) or (not sentence and report.leaks)


def test_another_type_or_format_than_the_rules_say_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", range(30))
    mask(source, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    parquet.write_table(table.set_column(0, "id", table["id"].cast(pa.int64())), tmp_path / "other.parquet")
    report = verify_masked(str(source), str(tmp_path / "other.parquet"), RULES, PatternFinder(), keys=KEYS)
    assert "column 'id' is int64 in the output, and the rules make it string" in report.broken
    assert {leak.found for leak in report.leaks} == {Found.ALTERED}


class FailingFinder(PatternFinder):
    """A finder that fails in the middle of the second reading."""

    calls = 0

    def find(self, texts: Any, context: tuple[str, ...], gate: Gate = Gate.ANYTHING) -> Any:
        self.calls += 1
        if self.calls > 2:
            raise DatasetError("stopped")
        return super().find(texts, context, gate)


def test_whatever_goes_wrong_nothing_appears_and_nothing_is_left_behind(tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "in.csv", range(30))
    with pytest.raises(DatasetError, match="stopped"):
        mask_dataset(str(source), str(tmp_path / "out" / "out.csv"), RULES, KEYS, FailingFinder())
    assert not (tmp_path / "out").exists()


def test_a_source_that_changes_between_the_two_readings_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", range(30))

    class Changing(PatternFinder):
        def find(self, texts: Any, context: tuple[str, ...], gate: Gate = Gate.ANYTHING) -> Any:
            if len(self.looked_at) > 80:
                write(source, range(31))
            return super().find(texts, context, gate)

    with pytest.raises(SourceChangedError):
        mask_dataset(str(source), str(tmp_path / "out.csv"), RULES, KEYS, Changing())
    assert not (tmp_path / "out.csv").exists()


def write_some(path: Path, kind: str) -> Path:
    if kind == "folder":
        for part in range(3):
            write(path / f"{part}.csv", range(part * 10, part * 10 + 10))
        return path
    return write(path.with_suffix(kind), range(30))


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet", "folder"])
def test_a_check_sees_the_very_dataset_that_appears_and_before_it_does(tmp_path: Path, kind: str) -> None:
    source = write_some(tmp_path / "in", kind)
    destination = tmp_path / source.name.replace("in", "out")
    seen: list[Any] = []

    def check(waiting: WaitingDataset, known: ValueIndex | None) -> None:
        assert not destination.exists()
        report = verify_located(locate(str(source)), waiting, RULES, PatternFinder(), keys=KEYS, known=known)
        report.check()
        seen.append((take_snapshot(waiting), report.dataset_sha256))

    made = mask_dataset(str(source), str(destination), RULES, KEYS, PatternFinder(), check=check)
    assert seen == [(made.snapshot, made.report.sha256)]
    assert [*seen[0][0].files] == [*snapshot(str(destination)).files]


@pytest.mark.parametrize("kind", [".csv", "folder"])
@pytest.mark.parametrize("is_there", [True, False], ids=["something there", "nothing there"])
def test_what_a_check_refuses_does_not_appear(tmp_path: Path, kind: str, is_there: bool) -> None:
    source = write_some(tmp_path / "in", kind)
    destination = tmp_path / source.name.replace("in", "out")
    if is_there:
        write_some(tmp_path / "out", kind)
    names = sorted(path.name for path in tmp_path.rglob("*"))
    before = snapshot(str(destination)) if is_there else None

    def refuse(waiting: WaitingDataset, known: ValueIndex | None) -> None:
        raise VerificationError("masking does not hold")

    with pytest.raises(VerificationError):
        mask_dataset(
            str(source), str(destination), RULES, KEYS, PatternFinder(), overwrite=True, check=refuse
        )
    assert sorted(path.name for path in tmp_path.rglob("*")) == names
    assert before == (snapshot(str(destination)) if is_there else None)


def test_what_is_changed_behind_a_check_does_not_appear(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", range(30))

    def change(waiting: WaitingDataset, known: ValueIndex | None) -> None:
        (part,) = waiting.list_parts().parts
        with Path(part.address).open("a") as file:
            file.write("31,Canary Person00031,,,,\n")

    with pytest.raises(DestinationError, match="was changed while it waited"):
        mask_dataset(str(source), str(tmp_path / "out.csv"), RULES, KEYS, PatternFinder(), check=change)
    assert not (tmp_path / "out.csv").exists()


def test_what_somebody_else_puts_in_its_place_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.csv", range(30))

    def swap_then_look(uri: str, **told: Any) -> Any:
        write(Path(uri), range(30))
        return snapshot(uri, **told)

    monkeypatch.setattr(datasets, "snapshot", swap_then_look)
    with pytest.raises(DestinationError, match="is not what was masked"):
        mask(source, tmp_path / "out.csv")


def test_what_cannot_be_masked_is_refused_by_name(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", range(30))
    out = tmp_path / "out.csv"
    with pytest.raises(ConfigurationError, match="no key for domain"):
        mask_dataset(str(source), str(out), RULES, KeyRing(), PatternFinder())
    with pytest.raises(InvalidRequestError, match="another format"):
        mask(source, tmp_path / "out.parquet")
    with pytest.raises(InvalidRequestError, match="local path"):
        mask_dataset(str(source), "s3://bucket/out.csv", RULES, KEYS, PatternFinder())
    with pytest.raises(DestinationError, match="is the source"):
        mask_dataset(str(source), str(source), RULES, KEYS, PatternFinder(), overwrite=True)
    with pytest.raises(SchemaMismatchError, match=r"numbers \[6\]"):
        mask(source, out, MaskingRules(columns=RULES.columns[:-1]))
    (tmp_path / "keys.jsonl").write_text(json.dumps({**person(1), "canary@x.org": 1}))
    with pytest.raises(SchemaMismatchError, match="1 keys of the objects") as caught:
        mask(tmp_path / "keys.jsonl", tmp_path / "out.jsonl")
    assert "canary" not in str(caught.value)
    (tmp_path / "empty.csv.gz").write_bytes(gzip.compress(b"id,name,phone,note,payload,gone\n"))
    with pytest.raises(SourceEmptyError, match="no rows"):
        mask(tmp_path / "empty.csv.gz", tmp_path / "out.csv.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.csv.gz", "in.csv", "keys.jsonl"]


def test_typed_columns_keep_their_types_in_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int32()),
            "who": pa.array(["a b", None]).dictionary_encode(),
            "at": pa.array([date(2020, 1, 1), None]),
            "tree": pa.array([[{"mail": "a@canary.org"}], None]),
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet")
    rules = MaskingRules(
        columns=(
            ColumnRule(column="n", treatment=Treatment.LEAVE),
            ColumnRule(column="who", treatment=Treatment.CELL, entity_type="PERSON", operator=Replace()),
            ColumnRule(column="at", treatment=Treatment.LEAVE),
            ColumnRule(column="tree", treatment=Treatment.LEAVES),
        )
    )
    mask(tmp_path / "in.parquet", tmp_path / "out.parquet", rules)
    made = parquet.read_table(tmp_path / "out.parquet")
    assert made.schema.equals(parquet.read_table(tmp_path / "in.parquet").schema)
    assert made["tree"].to_pylist() == [[{"mail": "<EMAIL_ADDRESS>"}], None]
    assert verify_masked(
        str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), rules, PatternFinder(), keys=KEYS
    ).verified
