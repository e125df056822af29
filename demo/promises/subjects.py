"""All subjects, in the order in which they are attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from demo.calls import Stage
from demo.places import Places
from demo.promises import enforcement, evidence, gate, ledger, lineage, pii, slack
from demo.promises.board import Promises, Subject
from demo.promises.following import leftovers
from demo.screen import show

# Ledger and evidence last: they tell of all attacks before.
SUBJECTS: tuple[Subject, ...] = (
    gate.SUBJECT,
    slack.SUBJECT,
    enforcement.SUBJECT,
    pii.SUBJECT,
    lineage.SUBJECT,
    ledger.SUBJECT,
    evidence.SUBJECT,
)


def new_board() -> Promises:
    """Return a board with every promise of every subject, none of them held yet."""
    return Promises(name for subject in SUBJECTS for name in subject.promises)


@contextmanager
def surroundings(places: Places) -> Iterator[dict[str, str]]:
    """Set up what the subjects need around Airflow; yields environment variables for it."""
    with ExitStack() as stack:
        env: dict[str, str] = {}
        for subject in SUBJECTS:
            env |= stack.enter_context(subject.surroundings(places))
        yield env


def attack_while_running(stage: Stage, promises: Promises) -> None:
    """Start the runs of all subjects at once, then attack one subject after the other."""
    for subject in SUBJECTS:
        subject.start(stage)
    for subject in SUBJECTS:
        subject.attack(stage, promises)


def inspect_after_the_end(stage: Stage, promises: Promises) -> None:
    """Look at what must hold now that Airflow has been stopped, first at what must have stayed empty."""
    for name, destination in promises.forbidden:
        if leftovers(destination):
            promises.observe(name, False, f"{destination.name} appeared after all")
    left = sorted(path.name for path in stage.places.outbox.iterdir())
    show(f"  in the outbox: {', '.join(left)}")
    for subject in SUBJECTS:
        subject.inspect(stage, promises)
