"""A run that was killed is taken up where it was: nothing is looked for twice, nothing is half there."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from airflow_approvals.core.errors import DatasetError, DestinationError
from airflow_approvals.pii.cells import Gate
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.datasets import MaskedDataset, mask_dataset
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.pace import Pace, Standing
from airflow_approvals.pii.resuming import open_work
from airflow_approvals.pii.verify_datasets import verify_masked
from airflow_approvals.pii.verify_report import VerifyReport
from tests.pii.mask_samples import KEYS, OTHER_KEYS, PatternFinder
from tests.pii.test_mask_datasets import RULES, write

PARTS, ROWS = 4, 30


class CountedFinder(PatternFinder):
    """Counts its questions, and at one of them kills its process or raises."""

    def __init__(self, *, killed_at: int = 0, raises_at: int = 0) -> None:
        super().__init__()
        self.asked = 0
        self._killed_at = killed_at
        self._raises_at = raises_at

    def find(
        self, texts: Iterable[str], context: tuple[str, ...], gate: Gate = Gate.ANYTHING
    ) -> Mapping[str, Sequence[Span]]:
        self.asked += 1
        if self.asked == self._killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.asked == self._raises_at:
            raise DatasetError("stopped")
        return super().find(texts, context, gate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in range(PARTS):
        write(tmp_path / "in" / f"{part}.csv", range(part * ROWS, (part + 1) * ROWS))
    return tmp_path


def mask(
    folder: Path, finder: PatternFinder, *, keys: KeyRing = KEYS, pace: Pace | None = None, name: str = "out"
) -> MaskedDataset:
    return mask_dataset(
        str(folder / "in"), str(folder / name), RULES, keys, finder, overwrite=True, pace=pace
    )


def verify(folder: Path, finder: PatternFinder) -> VerifyReport:
    return verify_masked(str(folder / "in"), str(folder / "out"), RULES, finder, keys=KEYS)


def questions(act: Callable[[Path, PatternFinder], object], folder: Path) -> int:
    finder = CountedFinder()
    act(folder, finder)
    return finder.asked


def kill(act: Callable[[Path, PatternFinder], object], folder: Path, *, at: int) -> None:
    """Do it in a process that is killed when it asks its question with this number."""
    process = multiprocessing.get_context("fork").Process(
        target=act, args=(folder, CountedFinder(killed_at=at))
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def mask_whole(folder: Path, finder: PatternFinder) -> MaskedDataset:
    return mask(folder, finder, name="whole")


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kill_masking(folder: Path, *, finished: int) -> int:
    """Kill a masking in the part behind `finished` ones; return the questions that a whole one asks."""
    asked = questions(mask_whole, folder)
    # The second reading looks twice at what it has changed.
    first_reading, second_reading = asked // 3, 2 * asked // 3
    kill(mask, folder, at=first_reading + finished * second_reading // PARTS + 1)
    assert not (folder / "out").exists()
    return asked


def test_a_killed_masking_goes_on_with_the_next_part(folder: Path) -> None:
    asked = kill_masking(folder, finished=2)
    said: list[Standing] = []
    finder = CountedFinder()
    made = mask(folder, finder, pace=Pace(said.append, every=0))
    assert made.resumed_parts == 2
    assert finder.asked == asked // 3  # the second reading of two parts of four
    whole = mask_whole(folder, PatternFinder())
    assert made.snapshot.sha256 == whole.snapshot.sha256
    assert made.report == whole.report
    assert left(folder) == ["in", "out", "whole"]
    masking = [each for each in said if each.step == "masking"]
    assert [each.rows for each in masking] == [0, 30, 60, 90, 120]
    assert masking[-1].percent == 100


def test_a_masking_killed_in_its_first_reading_does_not_look_twice(folder: Path) -> None:
    asked = questions(mask_whole, folder)
    kill(mask, folder, at=5)
    finder = CountedFinder()
    made = mask(folder, finder)
    assert finder.asked == asked - 4
    assert made.report == mask_whole(folder, PatternFinder()).report


def test_a_killed_verification_does_not_look_twice(folder: Path) -> None:
    mask(folder, PatternFinder())
    asked = questions(verify, folder)
    kill(verify, folder, at=asked - 2)
    finder = CountedFinder()
    report = verify(folder, finder)
    assert report.verified
    assert finder.asked == 3
    assert left(folder) == ["in", "out"]


def _another_key(folder: Path) -> dict[str, KeyRing]:
    return {"keys": OTHER_KEYS}


def _another_source(folder: Path) -> dict[str, KeyRing]:
    write(folder / "in" / "3.csv", range(200, 230))
    return {}


def _a_finished_part_changed(folder: Path) -> dict[str, KeyRing]:
    for work in folder.glob(".airflow-approvals-*"):
        for part in work.glob("part-*"):
            part.write_bytes(part.read_bytes() + b"x")
    return {}


CHANGES = {
    "another key": _another_key,
    "another source": _another_source,
    "a finished part changed": _a_finished_part_changed,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_was_done_for_something_else_is_not_used(
    folder: Path, change: Callable[[Path], dict[str, KeyRing]]
) -> None:
    kill_masking(folder, finished=2)
    keys = change(folder).get("keys", KEYS)
    made = mask(folder, PatternFinder(), keys=keys)
    assert made.resumed_parts == 0
    assert made.snapshot.sha256 == mask(folder, PatternFinder(), keys=keys, name="whole").snapshot.sha256


def test_nothing_of_the_source_lies_in_what_is_left_behind(folder: Path) -> None:
    kill_masking(folder, finished=2)
    (work,) = folder.glob(".airflow-approvals-*-mask")
    assert work.stat().st_mode & 0o077 == 0
    written = b"".join(path.read_bytes() for path in work.iterdir()).lower()
    assert b"@canary.org" not in written
    assert not [n for n in range(PARTS * ROWS) if n % 11 and f"person{n:05d}".encode() in written]


def test_an_error_that_would_come_again_leaves_nothing_behind(folder: Path) -> None:
    with pytest.raises(DatasetError, match="stopped"):
        mask(folder, CountedFinder(raises_at=6))
    assert left(folder) == ["in"]


def test_two_runs_never_make_the_same_at_once(tmp_path: Path) -> None:
    with (
        open_work(tmp_path / "out", "mask", {}),
        pytest.raises(DestinationError, match="another run"),
        open_work(tmp_path / "out", "mask", {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_pace_says_how_far_how_fast_and_for_how_long() -> None:
    now = [0.0]
    said: list[Standing] = []
    pace = Pace(said.append, every=10, clock=lambda: now[0])
    pace.begin("masking", 10_000)
    pace.add(1_000, resumed=True)
    for _ in range(3):
        now[0] += 5
        pace.add(500)
    assert [each.words for each in said] == [
        "masking: 0 of 10,000 rows (0 %)",
        "masking: 2,000 of 10,000 rows (20 %), 100 rows/s, 80 s left",
    ]
