"""The same promises on S3, over the real protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.core.errors import (
    DestinationError,
    DigestMismatchError,
    SourceChangedError,
    SourceMissingError,
)
from airflow_approvals.core.model import Snapshot
from airflow_approvals.staging import publish_s3
from airflow_approvals.staging.publish import publish, verify_published
from airflow_approvals.staging.snapshot import snapshot
from tests.staging.conftest import CONN_ID
from tests.staging.samples import ROWS, sha256sum, write_dataset, write_parts

pytestmark = pytest.mark.airflow

BOTH: dict[str, Any] = {"source_conn_id": CONN_ID, "destination_conn_id": CONN_ID}


def keys(s3: Any) -> list[str]:
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="stage")
    return [item["Key"] for item in s3.list_objects_v2(Bucket="stage").get("Contents", ())]


def upload_parts(s3: Any, folder: Path) -> Snapshot:
    for path in folder.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), "stage", f"in/{path.relative_to(folder).as_posix()}")
    return snapshot("s3://stage/in", conn_id=CONN_ID)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl.zst", ".parquet"])
def test_an_object_is_told_as_the_file_is_and_published_unchanged(
    s3: Any, tmp_path: Path, suffix: str
) -> None:
    path = write_dataset(tmp_path / f"a{suffix}")
    s3.upload_file(str(path), "stage", f"in/a{suffix}")

    found = snapshot(f"s3://stage/in/a{suffix}", conn_id=CONN_ID)

    local = snapshot(str(path))
    assert (found.sha256, found.rows, found.columns) == (sha256sum(path), ROWS, local.columns)
    publish(found.uri, f"s3://stage/out/a{suffix}", expected=local, **BOTH)
    assert s3.get_object(Bucket="stage", Key=f"out/a{suffix}")["Body"].read() == path.read_bytes()
    assert verify_published(f"s3://stage/out/a{suffix}", found, conn_id=CONN_ID)
    publish(found.uri, str(tmp_path / "back"), expected=found, source_conn_id=CONN_ID)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_folder_is_published_part_by_part(s3: Any, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", ".csv")
    found = upload_parts(s3, folder)

    assert found.files == snapshot(str(folder)).files
    publish("s3://stage/in", "s3://stage/out", expected=found, **BOTH)

    assert verify_published("s3://stage/out", found, conn_id=CONN_ID)
    assert [key for key in keys(s3) if key.startswith("out")] == ["out/a.csv", "out/b.csv", "out/day=1/c.csv"]


def test_an_object_of_several_upload_parts_is_whole(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_s3, "SMALLEST_PART", 5 * 1024 * 1024)
    path = write_dataset(tmp_path / "a.csv", range(400_000))
    approved = snapshot(str(path))

    publish(str(path), "s3://stage/a.csv", expected=approved, destination_conn_id=CONN_ID)

    assert path.stat().st_size > 10 * 1024 * 1024
    assert s3.head_object(Bucket="stage", Key="a.csv")["ETag"].endswith('-3"')
    assert verify_published("s3://stage/a.csv", approved, conn_id=CONN_ID)


def test_different_bytes_never_appear(s3: Any, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(path))
    write_dataset(path, range(7))

    with pytest.raises(DigestMismatchError):
        publish(str(path), "s3://stage/a.csv", expected=approved, destination_conn_id=CONN_ID)

    assert keys(s3) == []


def test_one_different_part_keeps_the_whole_folder_away(s3: Any, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", ".csv")
    approved = snapshot(str(folder))
    write_dataset(folder / "day=1" / "c.csv", range(7))

    with pytest.raises(DigestMismatchError):
        publish(str(folder), "s3://stage/out", expected=approved, destination_conn_id=CONN_ID)

    assert keys(s3) == []


def test_what_is_there_stays_unless_overwriting_was_asked_for(s3: Any, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.csv")
    approved = snapshot(str(path))
    s3.put_object(Bucket="stage", Key="a.csv", Body=b"before")

    with pytest.raises(DestinationError, match="is there already"):
        publish(str(path), "s3://stage/a.csv", expected=approved, destination_conn_id=CONN_ID)
    assert s3.get_object(Bucket="stage", Key="a.csv")["Body"].read() == b"before"

    publish(str(path), "s3://stage/a.csv", expected=approved, destination_conn_id=CONN_ID, overwrite=True)
    assert verify_published("s3://stage/a.csv", approved, conn_id=CONN_ID)


def test_an_object_that_comes_meanwhile_is_not_replaced_and_the_folder_is_taken_back(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_parts(tmp_path / "in", ".csv")
    approved = snapshot(str(folder))
    appear = publish_s3.StagedObjects.appear

    def appear_late(staged: publish_s3.StagedObjects) -> None:
        s3.put_object(Bucket="stage", Key="out/b.csv", Body=b"somebody else's")
        appear(staged)

    monkeypatch.setattr(publish_s3.StagedObjects, "appear", appear_late)

    with pytest.raises(DestinationError):
        publish(str(folder), "s3://stage/out", expected=approved, destination_conn_id=CONN_ID)

    assert keys(s3) == ["out/b.csv"]
    assert s3.get_object(Bucket="stage", Key="out/b.csv")["Body"].read() == b"somebody else's"


def test_a_folder_cut_short_by_a_kill_is_completed_by_the_next_publish(s3: Any, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", ".csv")
    approved = snapshot(str(folder))
    s3.upload_file(str(folder / "a.csv"), "stage", "out/a.csv")
    assert not verify_published("s3://stage/out", approved, conn_id=CONN_ID)

    publish(str(folder), "s3://stage/out", expected=approved, destination_conn_id=CONN_ID)

    assert verify_published("s3://stage/out", approved, conn_id=CONN_ID)


@pytest.mark.parametrize("key", ["out", "out/a.csv", "out/old.csv", "out/_SUCCESS"])
def test_a_prefix_that_holds_anything_else_is_refused(s3: Any, tmp_path: Path, key: str) -> None:
    folder = write_parts(tmp_path / "in", ".csv")
    approved = snapshot(str(folder))
    s3.put_object(Bucket="stage", Key=key, Body=b"before")

    for overwrite in (False, True):
        with pytest.raises(DestinationError):
            publish(
                str(folder),
                "s3://stage/out",
                expected=approved,
                destination_conn_id=CONN_ID,
                overwrite=overwrite,
            )

    assert keys(s3) == [key]


def test_a_source_that_is_missing_or_changes_is_refused(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_approvals.staging import streams

    for uri in ("s3://stage/none.csv", "s3://nobucket/none.csv"):
        with pytest.raises(SourceMissingError):
            snapshot(uri, conn_id=CONN_ID)
    path = write_dataset(tmp_path / "a.csv")
    s3.upload_file(str(path), "stage", "a.csv")
    finish = streams.HashedFile.finish

    def finish_late(file: streams.HashedFile) -> str:
        s3.put_object(Bucket="stage", Key="a.csv", Body=b"id,note\n1,2\n")
        return finish(file)

    monkeypatch.setattr(streams.HashedFile, "finish", finish_late)
    with pytest.raises(SourceChangedError):
        snapshot("s3://stage/a.csv", conn_id=CONN_ID)


@pytest.mark.parametrize("uri", ["s3://stage", "s3://stage/out/", "s3://stage/in/a.csv", "s3://stage/in"])
def test_a_destination_that_is_no_place_of_its_own_is_refused(s3: Any, tmp_path: Path, uri: str) -> None:
    s3.upload_file(str(write_dataset(tmp_path / "a.csv")), "stage", "in/a.csv")
    approved = snapshot("s3://stage/in/a.csv", conn_id=CONN_ID)

    with pytest.raises(DestinationError):
        publish("s3://stage/in/a.csv", uri, expected=approved, **BOTH)

    assert keys(s3) == ["in/a.csv"]
