"""The composition root: a policy file that is read again, and a plugin that costs a worker nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.wiring import FilePolicySource

GOOD = """
version: 1
groups: {stewards: {users: [alice]}}
policies:
  - {name: export, match: {action: [export]}, require: [{group: stewards}]}
"""
BETTER = GOOD.replace("[alice]", "[alice, bob]")

BROKEN = {
    "broken YAML": "version: 1\ngroups: {",
    "an unknown group": GOOD.replace("group: stewards", "group: nobody"),
    "an empty group": GOOD.replace("[alice]", "[]"),
    "nothing": "",
    "not UTF-8": b"\xff\xfe",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def test_a_changed_file_is_in_force_at_the_next_look(path: Path) -> None:
    path.write_text(GOOD)
    source = FilePolicySource(path)
    first = source.current()
    assert source.current() is first
    path.write_text(BETTER)
    assert source.current().digest != first.digest
    assert source.problem() is None


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_never_replaces_a_good_one_and_is_told(path: Path, broken: str | bytes) -> None:
    path.write_text(GOOD)
    source = FilePolicySource(path)
    good = source.current()
    path.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    assert source.current() is good
    assert source.problem()
    path.write_text(GOOD)
    assert source.problem() is None
    assert source.current().digest == good.digest


def test_a_file_that_is_gone_leaves_the_old_one_in_force(path: Path) -> None:
    path.write_text(GOOD)
    source = FilePolicySource(path)
    good = source.current()
    path.unlink()
    assert source.current() is good
    assert "cannot be read" in (source.problem() or "")


@pytest.mark.parametrize("broken", [None, *BROKEN.values()], ids=["no file", *BROKEN])
def test_without_any_good_file_there_is_no_policy(path: Path, broken: str | bytes | None) -> None:
    if broken is not None:
        path.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    source = FilePolicySource(path)
    with pytest.raises(PolicyError):
        source.current()
    path.write_text(GOOD)
    assert source.current().policies[0].name == "export"


def test_a_file_that_is_replaced_with_the_same_time_and_size_is_seen(path: Path) -> None:
    import os

    path.write_text(GOOD)
    source = FilePolicySource(path)
    first = source.current()
    status = path.stat()
    other = path.with_suffix(".new")
    other.write_text(GOOD.replace("alice", "carol"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert source.current().digest != first.digest


@pytest.mark.airflow
def test_the_plugin_costs_a_worker_no_web_framework() -> None:
    program = (
        "import airflow.plugins_manager, sys; before = set(sys.modules); "
        "import airflow_approvals.plugin; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new & {'fastapi', 'starlette', 'jinja2', 'httpx', 'securesystemslib'}), "
        "'airflow_approvals.store' in sys.modules, 'airflow_approvals.wiring' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] False False"
