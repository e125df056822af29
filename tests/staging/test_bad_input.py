# ruff: noqa: E501  # tables read best with one case a line
"""Bad input gets a named error before anybody is asked, and the error never holds a value from the data."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_approvals.core.errors import (
    ApprovalsError,
    ConfigurationError,
    InvalidRequestError,
    SchemaMismatchError,
    SourceChangedError,
    SourceEmptyError,
    SourceMissingError,
    SourceUnreadableError,
)
from airflow_approvals.core.model import Column
from airflow_approvals.staging import locations, streams
from airflow_approvals.staging.snapshot import snapshot
from tests.staging.samples import CANARY, write_dataset

C = CANARY.encode()
GOOD_CSV = b"a,b\n" + C + b",1\n"
GOOD_JSON = b'{"a": "' + C + b'"}\n'


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, **options)
    return bytes(sink.getvalue())


GOOD_PARQUET = parquet_bytes(pa.table({"a": [CANARY] * 2000}), compression="none", use_dictionary=False)
TWO_NAMES = parquet_bytes(pa.Table.from_arrays([pa.array([CANARY])] * 2, names=["a", "a"]))


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + 64]) + data[at + 64 :]


FILES: dict[str, tuple[str, bytes, type[ApprovalsError], str]] = {
    "no bytes, csv": ("x.csv", b"", SourceEmptyError, "no bytes"),
    "no bytes, json lines": ("x.jsonl", b"", SourceEmptyError, "no bytes"),
    "no bytes, parquet": ("x.parquet", b"", SourceEmptyError, "no bytes"),
    "no bytes, gzip": ("x.csv.gz", gzip.compress(b""), SourceEmptyError, "no bytes"),
    "header only": ("x.csv", b"a,b\n", SourceEmptyError, "no rows"),
    "blank lines only": ("x.jsonl", b"\n \n", SourceEmptyError, "no rows"),
    "zero rows, parquet": ("x.parquet", parquet_bytes(pa.table({"a": pa.array([], pa.int8())})), SourceEmptyError, "no rows"),
    "ragged row": ("x.csv", GOOD_CSV * 1 + C + b"\n", SourceUnreadableError, "row 3 has 1 fields, expected 2"),
    "ragged row far down": ("x.csv", GOOD_CSV + b"1,2\n" * 900_000 + C + b",2,3\n", SourceUnreadableError, "row 900003 has 3"),
    "quote never closed": ("x.csv", GOOD_CSV + b'1,"' + C + b"\n2,3\n", SourceUnreadableError, "never closed"),
    "row beyond the block": ("x.csv", GOOD_CSV + b'1,"' + C * 600_000 + b'"\n', SourceUnreadableError, "longer than"),
    "bad UTF-8, csv": ("x.csv", GOOD_CSV + C + b",\xff\n", SourceUnreadableError, "line 3 holds bytes"),
    "cut UTF-8 at the end": ("x.csv", GOOD_CSV + C + b",\xc3", SourceUnreadableError, "not UTF-8"),
    "bad UTF-8, json lines": ("x.jsonl", GOOD_JSON + b'{"a": "\xff' + C + b'"}\n', SourceUnreadableError, "line 2 holds bytes"),
    "NUL": ("x.csv", GOOD_CSV + C + b",\0\n", SourceUnreadableError, "line 3 holds a NUL"),
    "UTF-16": ("x.csv", GOOD_CSV.decode().encode("utf-16"), SourceUnreadableError, "line 1"),
    "same name twice, csv": ("x.csv", b"a,b,a\n1,2,3\n", SourceUnreadableError, "columns 1 and 3"),
    "no name, csv": ("x.csv", b"a,,c\n1,2,3\n", SourceUnreadableError, "column 2 has no name"),
    "same name twice, parquet": ("x.parquet", TWO_NAMES, SourceUnreadableError, "columns 1 and 2"),
    "same key twice, json lines": ("x.jsonl", b'{"a": 1, "a": "' + C + b'"}\n', SourceUnreadableError, "line 1 has the same key"),
    "broken json": ("x.jsonl", GOOD_JSON * 2 + b'{"a": ' + C + b"\n", SourceUnreadableError, "line 3 is not valid JSON"),
    "NaN in json": ("x.jsonl", GOOD_JSON + b'{"a": NaN}\n', SourceUnreadableError, "line 2 is not valid JSON"),
    "json, but no object": ("x.jsonl", GOOD_JSON + b'["' + C + b'"]\n', SourceUnreadableError, "line 2 is not a JSON object"),
    "json too deep": ("x.jsonl", b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", SourceUnreadableError, "not valid"),
    "half a character as key": ("x.jsonl", b'{"\\ud800": 1}\n', SourceUnreadableError, "column name"),
    "line too long": ("x.jsonl", b'{"a": "' + C * 800_000 + b'"}\n', SourceUnreadableError, "longer than"),
    "gzip cut off": ("x.csv.gz", gzip.compress(GOOD_CSV * 500)[:-9], SourceUnreadableError, "ends too early"),
    "gzip, then something else": ("x.csv.gz", gzip.compress(GOOD_CSV) + C, SourceUnreadableError, "damaged"),
    "gzip checksum": ("x.csv.gz", gzip.compress(GOOD_CSV)[:-8] + b"\0" * 8, SourceUnreadableError, "damaged"),
    "not gzip": ("x.csv.gz", GOOD_CSV, SourceUnreadableError, "damaged"),
    "bz2 cut off": ("x.csv.bz2", bz2.compress(GOOD_CSV)[:-4], SourceUnreadableError, "ends too early"),
    "bz2, then something else": ("x.csv.bz2", bz2.compress(GOOD_CSV) + C, SourceUnreadableError, "damaged"),
    "xz cut off": ("x.jsonl.xz", lzma.compress(GOOD_JSON)[:-4], SourceUnreadableError, "ends too early"),
    "xz, then something else": ("x.jsonl.xz", lzma.compress(GOOD_JSON) + C * 2, SourceUnreadableError, "damaged"),
    "zstd cut off": ("x.csv.zst", pa.compress(GOOD_CSV, "zstd", asbytes=True)[:-3], SourceUnreadableError, "unpacked"),
    "zstd, then something else": ("x.csv.zst", pa.compress(GOOD_CSV, "zstd", asbytes=True) + C, SourceUnreadableError, "damaged"),
    "parquet cut off": ("x.parquet", GOOD_PARQUET[:-1], SourceUnreadableError, "does not begin and end"),
    "parquet page damaged": ("x.parquet", damaged(GOOD_PARQUET, 4), SourceUnreadableError, "damaged"),
    "parquet footer damaged": ("x.parquet", damaged(GOOD_PARQUET, len(GOOD_PARQUET) - 90), SourceUnreadableError, "damaged"),
    "csv named parquet": ("x.parquet", GOOD_CSV, SourceUnreadableError, "does not begin and end"),
    "parquet in gzip": ("x.parquet.gz", gzip.compress(GOOD_PARQUET), SourceUnreadableError, "unpack it"),
    "unknown name": ("x.xlsx", C, SourceUnreadableError, "does not tell the format"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "error", "words"), FILES.values(), ids=FILES.keys())
def test_a_bad_file_is_refused_by_name_and_without_its_values(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    name: str,
    data: bytes,
    error: type[ApprovalsError],
    words: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / name).write_bytes(data)

    with pytest.raises(error, match=words) as caught:
        snapshot(str(tmp_path / name))

    assert type(caught.value) is error
    assert name in str(caught.value)
    # Airflow logs the whole traceback, with every error that this one came from.
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    assert CANARY not in shown


@pytest.mark.parametrize("place", range(3), ids=["file", "column chunk", "row group"])
def test_a_forged_row_count_is_found(tmp_path: Path, place: int) -> None:
    count, forged = b"\x16\xa0\x1f", b"\x16\x82\x10"  # an i64 of the footer: 2000, and 1025
    pieces = GOOD_PARQUET.split(count)
    assert len(pieces) == 4
    data = count.join(pieces[: place + 1]) + forged + count.join(pieces[place + 1 :])
    (tmp_path / "a.parquet").write_bytes(data)

    with pytest.raises(SourceUnreadableError):
        snapshot(str(tmp_path / "a.parquet"))


FOLDERS: dict[str, tuple[dict[str, bytes], str]] = {
    "other columns": ({"a.csv": b"a,b\n1,2\n", "b.csv": b"a,c\n1,2\n"}, "b.csv: has other columns"),
    "other order": ({"a.csv": b"a,b\n1,2\n", "b.csv": b"b,a\n1,2\n"}, "b.csv: has other columns"),
    "other format": ({"a.csv": b"a\n1\n", "b.jsonl": b'{"a":1}\n'}, "b.jsonl: is jsonl, but a.csv is csv"),
    "other compression": ({"a.csv": b"a\n1\n", "b.csv.gz": gzip.compress(b"a\n1\n")}, "compressed with gzip"),
    "a stranger": ({"a.csv": b"a\n1\n", "readme.txt": b"x"}, "readme.txt: the name does not tell"),
}


@pytest.mark.parametrize(("files", "words"), FOLDERS.values(), ids=FOLDERS.keys())
def test_parts_that_do_not_belong_together_are_refused(
    tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)

    with pytest.raises(SourceUnreadableError, match=words):
        snapshot(str(tmp_path))


def test_a_source_that_is_not_there_or_holds_no_part_is_missing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "only" / "_hidden").mkdir(parents=True)
    (tmp_path / "only" / "_SUCCESS").touch()
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "gone.csv")
    for name in ("nothing.csv", "empty", "only", "dangling.csv"):
        with pytest.raises(SourceMissingError):
            snapshot(str(tmp_path / name))


@pytest.mark.parametrize(
    "uri", ["a.csv", "file://host/a.csv", "/data/../etc/passwd", "file:/a.csv", "/a\0.csv"]
)
def test_ambiguous_addresses_are_refused(uri: str) -> None:
    with pytest.raises(InvalidRequestError):
        snapshot(uri)


@pytest.mark.parametrize("uri", ["nope://bucket/a.csv", "http://host/a.csv"])
def test_a_storage_that_airflow_does_not_know_is_named(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{uri}: Airflow knows no storage"):
        snapshot(uri)


def test_pipes_devices_and_linked_folders_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    folder = tmp_path / "folder"
    write_dataset(folder / "a.csv")
    (folder / "elsewhere").symlink_to(tmp_path)
    for uri in (str(tmp_path / "pipe.csv"), "/dev/zero", str(folder)):
        with pytest.raises(SourceUnreadableError):
            snapshot(uri, format="csv")


def test_a_format_that_contradicts_the_name_is_refused(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.csv")

    with pytest.raises(SourceUnreadableError, match="named as csv, but jsonl was declared"):
        snapshot(str(path), format="jsonl")
    with pytest.raises(InvalidRequestError, match="expected parquet, csv or jsonl"):
        snapshot(str(path), format="xlsx")


DECLARED = {
    "missing": (["id", "note", "more"], "string", "column 'more' is missing"),
    "not declared": (["id"], "string", "column number 2 is not declared"),
    "type": (["id", "note"], "int64", "column 'id' is string, expected int64"),
}


@pytest.mark.parametrize(("names", "kind", "words"), DECLARED.values(), ids=DECLARED.keys())
def test_other_columns_than_declared_are_named(
    tmp_path: Path, names: list[str], kind: str, words: str
) -> None:
    path = write_dataset(tmp_path / "a.csv")

    with pytest.raises(SchemaMismatchError, match=words):
        snapshot(str(path), columns=[Column(name=name, type=kind) for name in names])


def change_and_put_time_back(path: Path) -> None:
    status = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


Change = Callable[[Path], object]
CHANGES: dict[str, Change] = {
    "appended": lambda path: path.write_bytes(path.read_bytes() + b"9,9\n"),
    "touched": lambda path: os.utime(path),
    "same size, time put back": change_and_put_time_back,
    "replaced by rename": lambda path: Path(str(path) + ".new").rename(path),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    path = write_dataset(tmp_path / "a.csv")
    Path(str(path) + ".new").write_bytes(path.read_bytes())
    finish = streams.HashedFile.finish

    def finish_late(file: streams.HashedFile) -> str:
        digest = finish(file)
        change(path)
        return digest

    monkeypatch.setattr(streams.HashedFile, "finish", finish_late)

    with pytest.raises(SourceChangedError):
        snapshot(str(path))


def test_parquet_that_changes_between_its_two_readings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_approvals.staging.parquet_parts import ParquetPart

    path = write_dataset(tmp_path / "a.parquet")
    hash_first = ParquetPart._hash

    def then_change(part: ParquetPart) -> list[bytes]:
        blocks = hash_first(part)
        path.write_bytes(path.read_bytes().replace(b"line one", b"line 0ne"))
        return blocks

    monkeypatch.setattr(ParquetPart, "_hash", then_change)
    monkeypatch.setattr(
        locations, "_identity", lambda status: ()
    )  # even when nothing can be seen from outside

    with pytest.raises(SourceChangedError):
        snapshot(str(path))


def test_a_part_that_comes_while_a_folder_is_read_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "a.csv")
    finish = streams.HashedFile.finish

    def finish_late(file: streams.HashedFile) -> str:
        (tmp_path / "b.csv").write_bytes(b"id,note\n1,2\n")
        return finish(file)

    monkeypatch.setattr(streams.HashedFile, "finish", finish_late)

    with pytest.raises(SourceChangedError, match="parts came or went"):
        snapshot(str(tmp_path))


def test_json_text_of_any_order_keeps_the_first_order_of_keys(tmp_path: Path) -> None:
    rows = [{"b": 1}, {"a": 1, "b": 2.5}, {"c": None}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))

    found = snapshot(str(tmp_path / "a.jsonl")).columns

    assert [(column.name, column.type) for column in found] == [
        ("b", "double"),
        ("a", "int64"),
        ("c", "null"),
    ]
