"""A file is whole or not there, and nothing lies beside it."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_approvals.whole_files import write_whole, write_whole_once


def test_a_file_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_whole(path, b"first", mode=0o644)
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_who_write_once_one_wins_and_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    contents = [str(number).encode() * 1000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_whole_once(path, content), contents))
    won = path.read_bytes()
    assert won in contents
    write_whole_once(path, b"too late")
    assert path.read_bytes() == won
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "taken" / "by a folder").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", b"content")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
