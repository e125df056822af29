"""`identity`: which accounts elsewhere are linked to your login, and linking one by the code it was told."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from rich.text import Text

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.output import print_json, print_line, stdout
from airflow_approvals.cli.session import connect
from airflow_approvals.core.errors import InvalidRequestError


def show(args: Namespace) -> int:
    """List the accounts that vote as you."""
    with connect(args) as client:
        found = client.identities()
    if args.output == "json":
        print_json(found)
        return Exit.OK
    for link in found["links"]:
        print_line(f"{_name_of(link)}, linked to {found['person']} at {link['linked_at']}")
    if not found["links"]:
        print_line(f"no account elsewhere is linked to {found['person']}")
    return Exit.OK


def link(args: Namespace) -> int:
    """Show which account was told the code, ask, and link it."""
    with connect(args) as client:
        told = client.link_identity(args.code)
        if args.output == "table":
            print_line(f"{_name_of(told)} was told this code. Once linked, it votes as {told['person']}.")
        if not (args.yes or _is_meant()):
            print_line("nothing was linked")
            return Exit.USAGE
        linked = client.link_identity(args.code, confirm=True)
    if args.output == "json":
        print_json(linked)
    else:
        print_line(f"linked: {_name_of(linked)} is {linked['person']} from now on", style="bold")
    return Exit.OK


def unlink(args: Namespace) -> int:
    """End the link of one account: it votes for nobody from now on."""
    provider, _, rest = args.account.partition(":")
    team_id, _, user_id = rest.partition("/")
    if not (provider and team_id and user_id):
        raise InvalidRequestError("an account is named as in `identity list`: slack:T0123/U0456")
    with connect(args) as client:
        ended = client.unlink_identity(provider, team_id, user_id)
    if args.output == "json":
        print_json(ended)
    else:
        print_line(f"unlinked: {args.account}", style="bold")
    return Exit.OK


def _name_of(account: dict[str, Any]) -> str:
    return f"{account['provider']}:{account['team_id']}/{account['user_id']}"


def _is_meant() -> bool:
    if not sys.stdin.isatty():
        raise InvalidRequestError("to link an account without a terminal to ask in, add --yes")
    # As `Text`: in a string, rich would take [y/N] for markup.
    reply = stdout().input(Text("\nIs this account your own? [y/N] "))
    return reply.strip().lower() in ("y", "yes")
