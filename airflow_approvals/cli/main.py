"""`airflow-approvals`: the commands on machines without Airflow's configuration, or without Airflow."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Sequence

from airflow_approvals import __version__
from airflow_approvals.cli.exits import exits_text
from airflow_approvals.cli.grammar import COMMANDS, Command, Group
from airflow_approvals.cli.run import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(argv)
    return run_command(args.function, args)


def build_parser() -> ArgumentParser:
    """Return the parser of the whole command table."""
    parser = ArgumentParser(
        prog="airflow-approvals",
        description="Nothing leaves a DAG until somebody else has approved exactly those bytes.",
        epilog=f"exit codes:\n{exits_text()}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"airflow-approvals {__version__}")
    _add_all(parser.add_subparsers(metavar="COMMAND", required=True), COMMANDS)
    return parser


def _add_all(parsers: _SubParsersAction[ArgumentParser], commands: Sequence[Command | Group]) -> None:
    for command in commands:
        parser = parsers.add_parser(command.name, help=command.help, description=command.help)
        if isinstance(command, Group):
            _add_all(parser.add_subparsers(metavar="COMMAND", required=True), command.commands)
            continue
        for option in command.options:
            parser.add_argument(*option.flags, help=option.help, **option.settings)
        parser.set_defaults(function=command.function)


if __name__ == "__main__":
    sys.exit(main())
