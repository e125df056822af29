"""What a snapshot says is what is there, in every format, compression and place."""

from __future__ import annotations

import codecs
import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import SourceEmptyError
from airflow_approvals.core.model import Column, to_json
from airflow_approvals.staging.publish import publish, verify_published
from airflow_approvals.staging.snapshot import snapshot
from tests.staging.samples import ROWS, SUFFIXES, sha256sum, write_dataset, write_parts

TYPES = {"csv": ["string", "string"], "jsonl": ["int64", "string"], "parquet": ["int64", "string"]}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_told_exactly_and_published_unchanged(tmp_path: Path, suffix: str) -> None:
    path = write_dataset(tmp_path / f"customers{suffix}")

    found = snapshot(f"file://{path}")

    assert found.rows == ROWS
    assert found.sha256 == sha256sum(path) == found.files[0].sha256
    assert (found.size, found.files[0].name) == (path.stat().st_size, path.name)
    assert [column.name for column in found.columns] == ["id", "note"]
    assert [column.type for column in found.columns] == TYPES[found.format]
    target = tmp_path / "out" / path.name
    assert publish(str(path), f"file://{target}", expected=found).sha256 == found.sha256
    assert target.read_bytes() == path.read_bytes()
    assert verify_published(str(target), found)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_is_told_part_by_part_and_published_unchanged(tmp_path: Path, suffix: str) -> None:
    folder = write_parts(tmp_path / "parts", suffix)

    found = snapshot(str(folder))

    names = [f"a{suffix}", f"b{suffix}", f"day=1/c{suffix}"]
    assert found.rows == ROWS
    assert [file.name for file in found.files] == names
    assert [file.sha256 for file in found.files] == [sha256sum(folder / name) for name in names]
    assert found.sha256 == digest_of([to_json(file) for file in found.files])
    target = tmp_path / "out"
    assert publish(str(folder), str(target), expected=found).sha256 == found.sha256
    there = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert there == names
    assert all((target / name).read_bytes() == (folder / name).read_bytes() for name in names)
    assert verify_published(str(target), found)


def test_types_are_arrow_s_own_words(tmp_path: Path) -> None:
    columns: dict[str, tuple[pa.DataType, object]] = {
        "big": (pa.int64(), 2**53 + 1),
        "when": (pa.timestamp("us", tz="UTC"), 0),
        "price": (pa.decimal128(12, 2), None),
        "tags": (pa.list_(pa.string()), ["x"]),
        "home": (pa.struct([("zip", pa.string())]), {"zip": "1"}),
    }
    table = pa.table({name: pa.array([value], kind) for name, (kind, value) in columns.items()})
    parquet.write_table(table, tmp_path / "a.parquet")

    found = snapshot(str(tmp_path / "a.parquet"))

    assert [column.type for column in found.columns] == [
        "int64",
        "timestamp[us, tz=UTC]",
        "decimal128(12, 2)",
        "list<element: string>",
        "struct<zip: string>",
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    for name, text in {"a.csv": b"id,n\n1,2\n", "a.jsonl": b'{"id": 1, "n": 2}\n'}.items():
        (tmp_path / name).write_bytes(codecs.BOM_UTF8 + text)
        assert [column.name for column in snapshot(str(tmp_path / name)).columns] == ["id", "n"]


def test_csv_rows_respect_quotes_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a,b\r\n1,"x\r\ny"\r\n\r\n"2,""3",\r\n4,5')

    assert snapshot(str(tmp_path / "a.csv")).rows == 3


def test_a_part_without_rows_is_fine_beside_one_with_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n")
    (tmp_path / "b.csv").write_bytes(b"a,b\n1,2\n")

    assert snapshot(str(tmp_path)).rows == 1


def test_columns_may_be_declared_in_any_order(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.parquet")

    snapshot(str(path), columns=[Column(name="note", type="string"), Column(name="id", type="int64")])


JSON_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3), st.lists(st.integers(), max_size=2), st.dictionaries(st.just("k"), st.integers()),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(values=st.lists(JSON_VALUES, min_size=1, max_size=8), seed=st.integers())
def test_types_of_json_lines_do_not_depend_on_the_order_of_lines(
    tmp_path_factory: pytest.TempPathFactory, values: list[object], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    shuffled = list(values)
    random.Random(seed).shuffle(shuffled)  # noqa: S311  # not a secret
    for name, rows in {"a.jsonl": values, "b.jsonl": shuffled}.items():
        (folder / name).write_text("".join(json.dumps({"v": row}) + "\n" for row in rows))

    assert snapshot(str(folder / "a.jsonl")).columns == snapshot(str(folder / "b.jsonl")).columns


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=20))
def test_csv_rows_are_counted_as_the_standard_library_counts_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("count") / "a.csv"
    clean = [[cell.replace("\0", "") for cell in row] for row in rows]
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [["a", "b"], *clean]]
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace", newline="")

    if clean:
        assert snapshot(str(path)).rows == len(clean)
    else:
        with pytest.raises(SourceEmptyError):
            snapshot(str(path))


def test_local_snapshots_need_no_airflow_and_importing_needs_no_arrow(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.parquet")
    code = (
        "import sys\n"
        "from airflow_approvals.staging import publish, snapshot, sql\n"
        "assert not {'pyarrow', 'pandas', 'airflow', 's3fs'} & set(sys.modules)\n"
        f"snapshot.snapshot({str(path)!r})\n"
        "assert 'airflow' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


PEAK = """
def peak_kb():  # ru_maxrss would not do: a child begins with its parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".parquet"])
def test_memory_is_bounded_by_the_batch_not_by_the_file(tmp_path: Path, suffix: str) -> None:
    path = write_dataset(tmp_path / f"large{suffix}", range(1_000_000 if suffix == ".parquet" else 250_000))
    code = PEAK + (
        "import pyarrow.csv, pyarrow.parquet\n"
        "from airflow_approvals.staging.snapshot import snapshot\n"
        "before = peak_kb()\n"
        f"assert snapshot({str(path)!r}).rows >= 250_000\n"
        "print((peak_kb() - before) // 1024)\n"
    )

    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert int(run.stdout) <= 150
