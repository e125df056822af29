"""The board of promises: everything starts as not held, and only what was observed counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from demo.calls import Stage
from demo.places import Places
from demo.screen import console, show_wrapped


class Promises:
    """What was tried and held."""

    def __init__(self, names: Iterable[str]) -> None:
        self.held = dict.fromkeys(names, False)
        self.forbidden: list[tuple[str, Path]] = []
        """Where nothing may ever appear, and the promise that says so."""

    def forbid(self, name: str, *destinations: Path) -> None:
        """Note destinations to look at again when nothing runs any more."""
        self.forbidden += [(name, destination) for destination in destinations]

    def observe(self, name: str, held: bool, told: str) -> None:
        """Record what an attack came to; a name that nobody has promised is an error."""
        if name not in self.held:
            raise KeyError(f"{name}: no subject promises this")
        self.held[name] = held
        console.print(f"  {'[green]held[/]  ' if held else '[bold red]BROKEN[/]'} [bold]{name}[/]")
        show_wrapped(told, indent=9)


def _nothing(stage: Stage) -> None:
    """Have no runs to start."""


def _observe_nothing(stage: Stage, promises: Promises) -> None:
    """Leave all that there is to see to the other time."""


def _no_surroundings(places: Places) -> AbstractContextManager[Mapping[str, str]]:
    return nullcontext({})


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Promises that are attacked together; what has its default has nothing to do at that time."""

    promises: tuple[str, ...]
    surroundings: Callable[[Places], AbstractContextManager[Mapping[str, str]]] = _no_surroundings
    """Entered before Airflow starts, left when it has ended: yields environment variables for Airflow."""
    start: Callable[[Stage], None] = _nothing
    """Starts runs and does not wait: those of all subjects wait side by side."""
    attack: Callable[[Stage, Promises], None] = _observe_nothing
    """Everything that needs a running Airflow."""
    inspect: Callable[[Stage, Promises], None] = _observe_nothing
    """Everything that must hold with files and public keys alone; Airflow has been stopped."""
