"""`make demo`: see `demo.walk`; `make demo AUTO=1`: see `demo.promises.subjects`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from airflow_approvals.core.errors import ApprovalsError
from demo.calls import Stage
from demo.embedded import DemoError, EmbeddedAirflow
from demo.places import CHECKOUT, Places, prepare
from demo.promises.subjects import attack_while_running, inspect_after_the_end, new_board, surroundings
from demo.screen import console
from demo.slack import DemoSlack, slack_beside
from demo.walk import walk

ROLES = {"engineer": "user", "alice": "viewer", "bob": "viewer"}
CUSTOMERS, ATTACKED_CUSTOMERS = 5_000, 500
OUTSIDER = {"mallory": "viewer"}
ATTACKS = {"attacks": CHECKOUT / "demo" / "dags"}


def main() -> int:
    """Run the demo and return its exit status."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--auto", action="store_true", help="answer by itself and attack every promise")
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    if parser.parse_args().auto:
        return _auto()
    return _by_hand()


def _by_hand() -> int:
    try:
        places = prepare(tuple(ROLES), customers=CUSTOMERS)
        with slack_beside() as slack, _airflow(places, ROLES, env=slack.env) as airflow:
            slack.attach(airflow.url)
            _walk_and_stay(airflow, slack)
    except KeyboardInterrupt:
        console.print()
    except (DemoError, ApprovalsError) as error:
        _print_error(error)
        return 1
    console.print("everything that was started has ended")
    return 0


def _walk_and_stay(airflow: EmbeddedAirflow, slack: DemoSlack) -> None:
    try:
        walk(Stage(airflow), slack)
        console.print(f"\nAirflow stays at {airflow.url}/approvals/ until you press Ctrl-C.")
        while True:
            airflow.check_alive()
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("\nstopping Airflow ...")


def _auto() -> int:
    started = time.monotonic()
    promises = new_board()
    try:
        roles = ROLES | OUTSIDER
        places = prepare(tuple(roles), customers=ATTACKED_CUSTOMERS)
        with surroundings(places) as env, _airflow(places, roles, attacks=ATTACKS, env=env) as airflow:
            stage = Stage(airflow)
            attack_while_running(stage, promises)
        console.print("\nAirflow has been stopped; what follows needs files and public keys alone\n")
        inspect_after_the_end(stage, promises)
    except (DemoError, ApprovalsError) as error:
        _print_error(error)
    except KeyboardInterrupt:
        _print_error("stopped; everything that was started has ended")
    ok = all(promises.held.values())
    result: dict[str, Any] = {
        "ok": ok,
        "seconds": round(time.monotonic() - started, 1),
        "promises": promises.held,
    }
    print(json.dumps(result), flush=True)  # noqa: T201  # the last line is for programs
    return 0 if ok else 1


def _airflow(
    places: Places,
    roles: dict[str, str],
    *,
    attacks: Mapping[str, Path] | None = None,
    env: Mapping[str, str] | None = None,
) -> EmbeddedAirflow:
    console.print("starting an Airflow of its own (about half a minute) ...")
    folders = {"dags": CHECKOUT / "dags", **(attacks or {})}
    return EmbeddedAirflow(places, roles=roles, dag_folders=folders, env=env or {})


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print_error(error: object) -> None:
    Console(stderr=True, highlight=False).print(str(error), style="red", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
