"""Runs one command: errors become one sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from importlib import import_module

from airflow_approvals.cli.exits import Exit, exit_of
from airflow_approvals.cli.output import print_problem
from airflow_approvals.core.errors import ApprovalsError

INTERRUPTED = 130
"""What a shell expects of a command that was ended by Ctrl-C."""


def run_command(function: str, args: Namespace) -> int:
    """Return the exit code of the function `module:name`, called with `args`."""
    _spell_what_cannot_be_written()
    module, _, name = function.partition(":")
    try:
        return int(getattr(import_module(module), name)(args))
    except ApprovalsError as error:
        # The last note is of the outermost file.
        print_problem(": ".join([*reversed(getattr(error, "__notes__", [])), str(error)]))
        return exit_of(error)
    except KeyboardInterrupt:
        print_problem("stopped; nothing was answered that was not confirmed before")
        return INTERRUPTED
    except BrokenPipeError:
        return Exit.ERROR
    except OSError as error:
        # A file that was named cannot be read or written.
        reason = error.strerror or type(error).__name__
        print_problem(f"{error.filename or 'a file'}: {reason}; check the path, and your rights")
        return Exit.ERROR


def _spell_what_cannot_be_written() -> None:
    """Have a terminal that knows few characters show the others as escapes: what was found must be told."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
