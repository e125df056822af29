"""Where the attacking DAGs keep what they got hold of; the triggerer imports it too."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook, Connection, Variable
from airflow.triggers.base import BaseTrigger, TriggerEvent

LEFT = Path(os.environ["LEFT"])


def note(name: str, connection: Any) -> None:
    """Keep all that a connection has."""
    parts = ("host", "login", "password", "schema", "port", "extra", "conn_type")
    (LEFT / name).write_text("\n".join(str(getattr(connection, part)) for part in parts))


def note_all(name: str) -> None:
    for attempt, read in (
        ("connection", lambda: note(f"{name}_connection", Connection.get("prod_api"))),
        ("hook", lambda: note(f"{name}_hook", BaseHook.get_connection("prod_api"))),
        ("variable", lambda: (LEFT / f"{name}_variable").write_text(Variable.get("prod_token"))),
    ):
        try:
            read()
        except Exception as error:  # noqa: BLE001  # whatever stops it is told to the test
            (LEFT / f"{name}_{attempt}_error").write_text(f"{type(error).__name__}: {error}")


class Peeking(BaseTrigger):
    """Reads the connection in the triggerer, which asks Airflow in its own process too."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (f"{__name__}.Peeking", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from asgiref.sync import sync_to_async

        await sync_to_async(note_all)("trigger")
        yield TriggerEvent({})  # type: ignore[no-untyped-call]  # Airflow's
