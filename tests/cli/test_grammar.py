"""One table behind both command lines."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

from airflow_approvals.cli.exits import TABLE, Exit, exit_of
from airflow_approvals.cli.grammar import COMMANDS, Command, Group
from airflow_approvals.cli.main import build_parser
from airflow_approvals.core.errors import error_types


def flat(commands: tuple[Command | Group, ...]) -> list[Command]:
    return [
        command for one in commands for command in (flat(one.commands) if isinstance(one, Group) else [one])
    ]


@pytest.mark.parametrize("command", flat(COMMANDS), ids=lambda command: command.function)
def test_every_command_has_a_function(command: Command) -> None:
    module, _, name = command.function.partition(":")
    assert callable(getattr(import_module(module), name))


def test_the_parser_is_built_without_airflow_and_without_a_database() -> None:
    code = (
        "import sys; from airflow_approvals.cli.main import build_parser; build_parser(); "
        "sys.exit(bool({'airflow', 'sqlalchemy', 'httpx', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.airflow
def test_airflow_offers_the_same_commands() -> None:
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    from airflow_approvals.cli.definition import get_approvals_cli_commands

    (group,) = get_approvals_cli_commands()
    assert group.name == "approvals"
    assert [command.name for command in group.subcommands] == [command.name for command in COMMANDS]
    for ours, theirs in zip(COMMANDS, group.subcommands, strict=True):
        if isinstance(ours, Group):
            assert isinstance(theirs, GroupCommand)
            continue
        assert isinstance(theirs, ActionCommand)
        assert [argument.flags for argument in theirs.args] == [option.flags for option in ours.options]


@pytest.mark.airflow
def test_airflow_runs_a_command_and_ends_with_its_exit_code(
    tmp_path_factory: pytest.TempPathFactory, airflow_home: object
) -> None:
    from airflow import __version__
    from packaging.version import Version

    if Version(__version__) < Version("3.2"):
        pytest.skip(
            "this Airflow does not take commands from providers; the script airflow-approvals has them"
        )
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "approvals", "policy", "check", "no-such-file.yaml"],
        cwd=tmp_path_factory.mktemp("empty"),
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.ERROR, done.stderr
    assert "no-such-file.yaml: No such file or directory" in done.stderr


def test_every_error_has_an_exit_code_that_is_not_success() -> None:
    for error in error_types().values():
        assert exit_of(error("what happened")) is not Exit.OK


def test_the_help_tells_every_exit_code() -> None:
    told = build_parser().format_help()
    for row in TABLE:
        assert f"{row.code:d}  {row.meaning}" in told


def test_wrong_options_end_with_the_usage_code() -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args(["approve"])
    assert end.value.code == Exit.USAGE
