"""Datasets for tests: the same rows in every format and compression."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

CANARY = "canary-7f3a"  # planted as a value; must never be seen in a message or log

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}

SUFFIXES = [f".{kind}{packed}" for kind in ("csv", "jsonl") for packed in COMPRESS] + [".parquet"]

ROWS = 3000


def write_dataset(path: Path, rows: range = range(ROWS)) -> Path:
    """Write rows of `id` and `note` in the format that the name tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = [None if number % 7 == 0 else f'line one, {number}\nline "two" {CANARY} ü' for number in rows]
    if path.suffix == ".parquet":
        table = pa.table({"id": pa.array(rows, pa.int64()), "note": pa.array(notes, pa.string())})
        parquet.write_table(table, path, row_group_size=700)
        return path
    kind = path.name.split(".")[1]
    packed = "." + path.name.split(".")[2] if path.name.count(".") > 1 else ""
    if kind == "csv":
        quoted = ('"' + note.replace('"', '""') + '"' if note else "" for note in notes)
        text = "id,note\n" + "".join(f"{number},{note}\n" for number, note in zip(rows, quoted, strict=True))
    else:
        pairs = ({"id": number, "note": note} for number, note in zip(rows, notes, strict=True))
        text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    path.write_bytes(COMPRESS[packed](text.encode()))
    return path


def write_parts(folder: Path, suffix: str) -> Path:
    """Write the same rows as a folder of three parts, one of them nested, beside files that are no part."""
    write_dataset(folder / f"b{suffix}", range(1000))
    write_dataset(folder / f"a{suffix}", range(1000, 1500))
    write_dataset(folder / "day=1" / f"c{suffix}", range(1500, ROWS))
    (folder / "_SUCCESS").touch()
    (folder / f".b{suffix}.crc").write_bytes(b"crc")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / f"half{suffix}").write_bytes(b"half")
    return folder


def sha256sum(path: Path) -> str:
    """Return what the sha256sum program says."""
    return subprocess.run(["sha256sum", "-b", str(path)], check=True, capture_output=True, text=True).stdout[
        :64
    ]
