"""A backend that takes events, and the specification that all of them are held against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_approvals.lineage.kept import FOLDER, KeptEvents
from tests.lineage import spec as specification
from tests.lineage.spec import Spec
from tests.marquez.server import StandIn


@pytest.fixture(scope="session")
def spec() -> Spec:
    """The specification; without it nothing can be said about an event."""
    found = specification.load()
    if found is None:
        pytest.skip(f"NOT CHECKED: the OpenLineage schemas are not at {specification.SPEC}")
    return found


@pytest.fixture
def backend() -> Iterator[StandIn]:
    """A stand-in for Marquez; every event that it took is held against the specification at the end."""
    with StandIn() as found:
        yield found
    known = specification.load()
    if known is not None and found.events:
        known.check(found.events)


@pytest.fixture
def kept(airflow_home: Path) -> Iterator[KeptEvents]:
    """What is kept on this machine; nothing, at first."""
    found = KeptEvents(airflow_home / FOLDER)
    yield found
    found.hand_over(lambda _: None)
