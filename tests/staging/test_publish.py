"""What is published is what was approved, or nothing appears."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_approvals.core.errors import (
    ApprovalsError,
    ConfigurationError,
    DatasetError,
    DestinationError,
    DigestMismatchError,
    InvalidRequestError,
    SourceMissingError,
    SourceUnreadableError,
)
from airflow_approvals.core.model import FileDigest
from airflow_approvals.staging import publish_local
from airflow_approvals.staging.publish import check_destination, publish, verify_published
from airflow_approvals.staging.snapshot import snapshot
from tests.staging.samples import CANARY, sha256sum, write_dataset, write_parts

Tamper = Callable[[Path], object]


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def swap_for_a_link(path: Path) -> None:
    other = write_dataset(path.with_name("other.csv"), range(5))
    path.unlink()
    path.symlink_to(other)


def swap_for_a_folder(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / path.name).write_bytes(data)


FILE_TAMPERINGS: dict[str, Tamper] = {
    "one byte changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
    "one row more": lambda path: path.write_bytes(path.read_bytes() + b"9,9\n"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "swapped for another file": lambda path: write_dataset(path, range(5)),
    "swapped for a link to another file": swap_for_a_link,
    "swapped for a folder": swap_for_a_folder,
}


@pytest.mark.parametrize("tamper", FILE_TAMPERINGS.values(), ids=FILE_TAMPERINGS.keys())
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_changed_after_approval_never_appears(tmp_path: Path, tamper: Tamper, overwrite: bool) -> None:
    source = write_dataset(tmp_path / "in" / "a.csv")
    approved = snapshot(str(source))
    out = tmp_path / "out"
    if overwrite:
        write_dataset(out / "a.csv", range(3))
    before = {path: path.read_bytes() for path in out.rglob("*")}
    tamper(source)

    with pytest.raises(DigestMismatchError) as caught:
        publish(str(source), str(out / "a.csv"), expected=approved, overwrite=overwrite)

    assert caught.value.expected == approved.sha256
    assert caught.value.found != approved.sha256
    assert CANARY not in str(caught.value)
    assert {path: path.read_bytes() for path in out.rglob("*")} == before
    assert out.exists() is overwrite


def swap_two_parts(folder: Path) -> None:
    (folder / "a.csv").rename(folder / "x.csv")
    (folder / "b.csv").rename(folder / "a.csv")
    (folder / "x.csv").rename(folder / "b.csv")


def swap_for_one_of_its_files(folder: Path) -> None:
    data = (folder / "a.csv").read_bytes()
    shutil.rmtree(folder)
    folder.write_bytes(data)


FOLDER_TAMPERINGS: dict[str, Tamper] = {
    "a part changed": lambda folder: write_dataset(folder / "day=1" / "c.csv", range(2)),
    "a part more": lambda folder: write_dataset(folder / "z.csv", range(2)),
    "a part less": lambda folder: (folder / "b.csv").unlink(),
    "a part renamed": lambda folder: (folder / "b.csv").rename(folder / "bb.csv"),
    "two parts swapped": swap_two_parts,
    "swapped for one of its files": swap_for_one_of_its_files,
}


@pytest.mark.parametrize("tamper", FOLDER_TAMPERINGS.values(), ids=FOLDER_TAMPERINGS.keys())
def test_a_folder_changed_after_approval_never_appears(tmp_path: Path, tamper: Tamper) -> None:
    folder = write_parts(tmp_path / "in", ".csv")
    approved = snapshot(str(folder))
    tamper(folder)

    with pytest.raises(DigestMismatchError):
        publish(str(folder), str(tmp_path / "out" / "parts"), expected=approved)

    assert not (tmp_path / "out").exists()


def test_what_is_there_stays_unless_overwriting_was_asked_for(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(source))
    target = tmp_path / "out.csv"
    target.write_text("before")

    with pytest.raises(DestinationError, match="is there already"):
        publish(str(source), str(target), expected=approved)
    assert target.read_text() == "before"

    publish(str(source), str(target), expected=approved, overwrite=True)
    assert sha256sum(target) == approved.sha256


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", ".csv")
    approved = snapshot(str(folder))
    target = tmp_path / "out" / "parts"
    write_dataset(target / "old.csv")

    with pytest.raises(DestinationError, match="is there already"):
        publish(str(folder), str(target), expected=approved)
    publish(str(folder), str(target), expected=approved, overwrite=True)

    assert names_in(tmp_path / "out") == [
        "parts",
        "parts/a.csv",
        "parts/b.csv",
        "parts/day=1",
        "parts/day=1/c.csv",
    ]


def test_what_comes_to_the_destination_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(source))
    target = tmp_path / "out.csv"
    appear = publish_local.StagedFile.appear

    def appear_late(staged: publish_local.StagedFile) -> None:
        target.write_text("somebody else's")
        appear(staged)

    monkeypatch.setattr(publish_local.StagedFile, "appear", appear_late)

    with pytest.raises(DestinationError):
        publish(str(source), str(target), expected=approved)
    assert target.read_text() == "somebody else's"
    assert names_in(tmp_path) == ["a.csv", "out.csv"]


def test_of_many_writers_at_once_one_publishes_and_none_leaves_anything(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(source))
    target = tmp_path / "out" / "a.csv"
    outcomes: list[str] = []

    def run() -> None:
        try:
            publish(str(source), str(target), expected=approved)
            outcomes.append("published")
        except DestinationError:
            outcomes.append("refused")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["published"] + ["refused"] * 7
    assert names_in(target.parent) == ["a.csv"]


def test_the_mode_is_what_umask_says_and_the_temporary_is_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(source))
    seen: list[int] = []
    writer = publish_local._writer

    def spy(descriptor: int) -> Callable[[memoryview], None]:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return writer(descriptor)

    monkeypatch.setattr(publish_local, "_writer", spy)
    before = os.umask(0o027)
    try:
        publish(str(source), str(tmp_path / "out.csv"), expected=approved)
    finally:
        os.umask(before)

    assert seen == [0o600]
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640


def test_a_linked_source_is_copied_by_its_bytes(tmp_path: Path) -> None:
    real = write_dataset(tmp_path / "real.csv")
    link = tmp_path / "link.csv"
    link.symlink_to(real)

    publish(str(link), str(tmp_path / "out.csv"), expected=snapshot(str(link)))

    assert not (tmp_path / "out.csv").is_symlink()
    assert sha256sum(tmp_path / "out.csv") == sha256sum(real)


def test_files_can_be_given_instead_of_a_snapshot(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.csv")
    files = [FileDigest(name="a.csv", sha256=sha256sum(source), size=source.stat().st_size)]

    assert publish(str(source), str(tmp_path / "b.csv"), expected=files).files == tuple(files)
    with pytest.raises(DigestMismatchError):
        publish(str(source), str(tmp_path / "c.csv"), expected=[replace(files[0], size=1)])
    with pytest.raises(DatasetError, match="no file was approved"):
        publish(str(source), str(tmp_path / "c.csv"), expected=[])


REFUSED: dict[str, tuple[str, type[ApprovalsError]]] = {
    "the source itself": ("{tmp}/in/a.csv", DestinationError),
    "the source through a link": ("{tmp}/link/a.csv", DestinationError),
    "within the source": ("{tmp}/in/a.csv/x.csv", DestinationError),
    "a folder's name": ("{tmp}/out/", DestinationError),
    "below a file": ("{tmp}/file/x.csv", DestinationError),
    "a folder that is there": ("{tmp}/in", DestinationError),
    "up and away": ("{tmp}/out/../../x.csv", InvalidRequestError),
    "relative": ("out.csv", InvalidRequestError),
    "too long a name": ("{tmp}/" + "x" * 300, DestinationError),
    "a store that cannot": ("memory://bucket/x.csv", ConfigurationError),
}


@pytest.mark.parametrize(("uri", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_a_destination_that_cannot_take_it_is_refused(
    tmp_path: Path, uri: str, error: type[ApprovalsError]
) -> None:
    source = write_dataset(tmp_path / "in" / "a.csv")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "file").touch()
    approved = snapshot(str(source))
    before = names_in(tmp_path)

    for overwrite in (False, True):
        with pytest.raises(error):
            publish(str(source), uri.format(tmp=tmp_path), expected=approved, overwrite=overwrite)

    assert names_in(tmp_path) == before
    assert sha256sum(source) == approved.sha256


NO_NAMES = {
    "a folder's name": ("/out/", DestinationError),
    "a prefix": ("s3://bucket/out/", DestinationError),
    "relative": ("out.csv", InvalidRequestError),
    "a store that cannot": ("gs://bucket/x.csv", ConfigurationError),
}


@pytest.mark.parametrize(("uri", "error"), NO_NAMES.values(), ids=NO_NAMES.keys())
def test_a_name_that_cannot_be_published_to_is_told_without_looking(
    uri: str, error: type[ApprovalsError]
) -> None:
    with pytest.raises(error):
        check_destination(uri)
    for good in ("/out/x.csv", "file:///out", "s3://conn@bucket/x.csv", "S3A://bucket/x"):
        check_destination(good)


def test_a_source_that_is_gone_or_became_a_pipe_is_refused(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(source))
    source.unlink()
    with pytest.raises(SourceMissingError):
        publish(str(source), str(tmp_path / "out.csv"), expected=approved)
    os.mkfifo(source)
    with pytest.raises(SourceUnreadableError):
        publish(str(source), str(tmp_path / "out.csv"), expected=approved)
    assert names_in(tmp_path) == ["a.csv"]


def test_a_full_disk_leaves_the_destination_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(source))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(DestinationError, match="No space left"):
        publish(str(source), str(tmp_path / "out.csv"), expected=approved)
    assert names_in(tmp_path) == ["a.csv"]


def test_recovery_knows_whether_the_write_was_made(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", ".csv")
    approved = snapshot(str(folder))
    target = tmp_path / "out"
    assert not verify_published(str(target), approved)

    publish(str(folder), str(target), expected=approved)
    assert verify_published(str(target), approved)

    for tamper in FOLDER_TAMPERINGS.values():
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
        publish(str(folder), str(target), expected=approved)
        tamper(target)
        assert not verify_published(str(target), approved)
