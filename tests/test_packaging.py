"""What is shipped: a wheel with the package, its data files and its entry points, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = "airflow_approvals/"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the names of all files in a freshly built wheel."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = target.glob("airflow_approvals-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_package_and_its_licence_and_nothing_else(names: list[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in names} == {"airflow_approvals"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "/tests/" in name or "/demo/" in name or name.endswith(".pyc")]


def test_the_wheel_tells_type_checkers_that_it_is_typed(names: list[str]) -> None:
    assert f"{OURS}py.typed" in names


def test_every_file_of_the_package_is_in_the_wheel(names: list[str]) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", OURS], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(tracked) <= set(names)


def our_entry_points() -> list[EntryPoint]:
    return [
        point
        for group in ("apache_airflow_provider", "airflow.plugins", "airflow.policy", "console_scripts")
        for point in entry_points(group=group)
        if point.value.startswith("airflow_approvals.")
    ]


def test_there_is_an_entry_point_of_each_kind() -> None:
    groups = {point.group for point in our_entry_points()}
    assert groups == {"apache_airflow_provider", "airflow.plugins", "airflow.policy", "console_scripts"}


@pytest.mark.airflow
@pytest.mark.parametrize("point", our_entry_points(), ids=lambda point: point.group)
def test_every_entry_point_can_be_loaded(point: EntryPoint) -> None:
    loaded = point.load()
    assert callable(loaded.task_policy if point.group == "airflow.policy" else loaded)


def test_pins_are_versions_only() -> None:
    for name in ("constraints.txt", "constraints-compat.txt"):
        for line in (ROOT / name).read_text().splitlines():
            assert line.count("==") == 1, f"{name}: {line}"
            assert "/" not in line, f"{name}: {line}"
