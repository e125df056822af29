"""What lineage costs a task: START and COMPLETE with our facets through the spool, beside the provider alone.

Both go through Airflow's provider (extraction, redaction, serialisation, transport). The provider's own cost
is an operator that tells nothing, sent straight to a backend; ours tells every column twice and its lineage,
and hands the events to the approvals service. Service and backend are processes of their own. Beside it
stands what the same facets cost when the client sends them straight to the backend.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

ROUNDS = 25
WARM = 3  # connections and caches are warm in a worker that runs tasks
COLUMNS = (10, 200, 2_000)

SERVICE = """
import sys
from pathlib import Path
from tests.bench.lineage import serve
serve(Path(sys.argv[1]), sys.argv[2])
"""
BACKEND = """
from tests.bench.lineage import stand_in
stand_in()
"""


def figures(rounds: int = ROUNDS) -> dict[str, float]:
    """Return milliseconds a task over the provider's own, by number of columns; all CPU time of the task."""
    with (
        tempfile.TemporaryDirectory(prefix="lineage-bench-") as folder,
        _process(BACKEND) as backend,
        _process(SERVICE, folder, backend) as service,
    ):
        _configure(service)
        straight, spooled = _adapter(_http(backend)), _spooled(backend)
        found: dict[str, float] = {}
        own = statistics.median(_tell(_plain(), straight, rounds))
        found["ms_provider_alone"] = own
        for columns in COLUMNS:
            operator = _export(columns)
            for name, adapter in (("ms_per_task", spooled), ("peer_ms_sent_straight", straight)):
                began = time.process_time()
                taken = statistics.median(_tell(operator, adapter, rounds))
                found[f"{name}_{columns}_columns"] = taken - own
                cpu = (time.process_time() - began) * 1000 / (rounds + WARM)
                found[f"{name.replace('ms_', 'cpu_ms_')}_{columns}_columns"] = cpu
        return found


def serve(folder: Path, backend: str) -> None:
    """Run the service until the input ends; tells where it is on the first line."""
    from openlineage.client.transport import get_default_factory

    from airflow_approvals.lineage.approval import Site as LineageSite
    from airflow_approvals.lineage.backend import TransportBackend, patient
    from airflow_approvals.lineage.spool import Lineage
    from airflow_approvals.store.lineage import SqlLineageSpool
    from airflow_approvals.web.app import create_app
    from airflow_approvals.web.lineage import LineageParts
    from tests.web.site import Site, mounted, serving

    site = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    transport = get_default_factory().create(patient(_http(backend)))
    told = LineageSite(namespace="default", base_url=site.base_url)
    parts = LineageParts(
        build=lambda service: Lineage(
            SqlLineageSpool(site.store.engine), TransportBackend(transport), service, told
        ),
        spool_of=lambda _: SqlLineageSpool(site.store.engine),
    )
    app = create_app(lambda: site.service, site.settings, site.users, lineage=parts)
    with serving(mounted(app), site.port):
        print(site.base_url, flush=True)
        sys.stdin.read()


def stand_in() -> None:
    """Run the backend until the input ends; tells where it is on the first line."""
    from tests.marquez.server import StandIn

    with StandIn() as backend:
        print(backend.url, flush=True)
        sys.stdin.read()


@contextmanager
def _process(script: str, *given: str) -> Iterator[str]:
    """Run a server; gives its address."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        try:
            yield next(line for line in started.stdout if line.startswith("http")).strip()
        finally:
            started.stdin.close()
            started.wait(timeout=20)


def _configure(service: str) -> None:
    from tests.web.site import SECRET

    os.environ["AIRFLOW__APPROVALS__WORKER_SECRET"] = SECRET
    os.environ["AIRFLOW__APPROVALS__SERVICE_URL"] = service
    os.environ["AIRFLOW__APPROVALS__BASE_URL"] = service
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"  # a line for every event otherwise


def _http(url: str) -> dict[str, Any]:
    return {"type": "http", "url": url}


def _spooled(backend: str) -> Any:
    from airflow_approvals.lineage.backend import SPOOL

    return _adapter({"type": SPOOL, "backend": _http(backend)})


def _adapter(transport: dict[str, Any]) -> Any:
    from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
    from openlineage.client import OpenLineageClient

    return OpenLineageAdapter(client=OpenLineageClient(config={"transport": transport}))


def _plain() -> Any:
    from airflow.sdk import BaseOperator

    return BaseOperator(task_id="export")


def _export(columns: int) -> Any:
    from airflow_approvals.core.model import Evidence, State
    from airflow_approvals.lineage.remembered import remember
    from airflow_approvals.operators.export import ApprovedExportOperator
    from tests.lineage.samples import a_snapshot, answered

    data = a_snapshot(columns=tuple(f"column_{number:04}" for number in range(columns)))
    request = replace(answered(State.APPROVED), evidence=Evidence(datasets=(data,)))
    operator = ApprovedExportOperator(
        task_id="export", source=data.uri, destination="file:///outbox/a.parquet"
    )
    remember(operator, request)
    return operator


def _tell(operator: Any, adapter: Any, rounds: int) -> list[float]:
    """Return milliseconds of each task: what the provider's listener does for its START and COMPLETE."""
    from airflow.providers.openlineage.extractors.manager import ExtractorManager
    from airflow.utils.state import TaskInstanceState

    manager: Any = ExtractorManager()  # type: ignore[no-untyped-call]  # Airflow's own
    run = SimpleNamespace(run_id="bench")
    taken = []
    for number in range(rounds + WARM):
        run_id = str(uuid4())
        shared: dict[str, Any] = {
            "job_name": "bench.export",
            "nominal_start_time": None,
            "nominal_end_time": None,
            "owners": ["bench"],
            "tags": [],
            "job_description": None,
        }
        began = time.perf_counter()
        for state, tell, when in (
            (TaskInstanceState.RUNNING, adapter.start_task, "event_time"),
            (TaskInstanceState.SUCCESS, adapter.complete_task, "end_time"),
        ):
            instance = SimpleNamespace(state=state, task=operator)
            told = manager.extract_metadata(
                dagrun=run, task=operator, task_instance_state=state, task_instance=instance
            )
            tell(run_id=run_id, task=told, **{when: "2026-03-01T12:00:00+00:00"}, **shared)
        if number >= WARM:
            taken.append((time.perf_counter() - began) * 1000)
    return taken
