"""The same commands as `airflow approvals ...`: Airflow 3.2 and later read them from the provider."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from airflow_approvals.cli.exits import exits_text
from airflow_approvals.cli.grammar import COMMANDS, Command, Group, Option


def get_approvals_cli_commands() -> list[GroupCommand]:
    """Return the `approvals` group, as Airflow's provider manager asks for it."""
    return [
        GroupCommand(
            name="approvals",
            help="Approve what leaves a DAG, and prove it afterwards",
            description="Nothing leaves a DAG until somebody else has approved exactly those bytes.",
            epilog=f"exit codes:\n{exits_text()}",
            subcommands=[_converted(command) for command in COMMANDS],
        )
    ]


def _converted(command: Command | Group) -> ActionCommand | GroupCommand:
    if isinstance(command, Group):
        return GroupCommand(
            name=command.name,
            help=command.help,
            subcommands=[_converted(part) for part in command.commands],
        )
    return ActionCommand(
        name=command.name,
        help=command.help,
        func=_runner(command.function),
        args=[_argument(option) for option in command.options],
    )


def _argument(option: Option) -> Arg:
    return Arg(flags=option.flags, help=option.help, **option.settings)  # type: ignore[no-untyped-call]  # Airflow's


def _runner(function: str) -> Callable[[Namespace], None]:
    def run(args: Namespace) -> None:
        from airflow_approvals.cli.run import run_command
        from airflow_approvals.settings import read_settings

        # Here Airflow's configuration is at hand; the other script has options and the environment only.
        settings = read_settings()
        args.configured_url, args.configured_policy = settings.service_url, settings.policy_file
        sys.exit(run_command(function, args))

    return run
