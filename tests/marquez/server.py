"""The stand-in's server: takes events as Marquez does, refuses what Marquez refuses, answers its questions.

It keeps to what was read in Marquez 0.51.1 and tried against it: an input is the newest version of its
dataset when the event arrives, an output is a new version, a job's edges are those of its last ended run.
The same tests run against a real Marquez where there is one (`tools/with-marquez`).
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.marquez.local import LocalHandler, LocalServer

NAMESPACE = re.compile(r"[a-zA-Z:;=/0-9_\-.@+]{1,1024}")
ENDED = {"COMPLETE": "COMPLETED", "FAIL": "FAILED", "ABORT": "ABORTED"}

Event = dict[str, Any]
Name = tuple[str, str]


class NobodyWroteItError(Exception):
    """Marquez 0.51.1 answers 500 where a run upstream has read what no run wrote ("u_r_uuid not found")."""


@dataclass
class Run:
    """What is known of one run."""

    id: str
    job: Name
    state: str = "RUNNING"
    facets: dict[str, Any] = field(default_factory=dict)
    inputs: dict[Name, str | None] = field(default_factory=dict)  # version read: the run that wrote it
    outputs: set[Name] = field(default_factory=set)


class StandIn(LocalServer):
    """Marquez on a loopback port; `trouble` makes it misbehave."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.events: list[Event] = []
        self.runs: dict[str, Run] = {}
        self.writers: dict[Name, str | None] = {}  # the run that wrote the newest version
        self.datasets: dict[Name, dict[str, Any]] = {}
        self.edges: dict[Name, tuple[set[Name], set[Name]]] = {}
        self.tags: set[tuple[str, str, str, str]] = set()
        self.trouble = ""  # a status, "garbage" or "nothing"
        self.calls = 0
        self._lock = threading.Lock()

    def keys(self) -> list[tuple[str, str]]:
        """Return (run id, event type) of every event that was taken, in order."""
        with self._lock:
            return [(event["run"]["runId"], event["eventType"]) for event in self.events]

    # --- what it does ------------------------------------------------------------------------------------

    def take(self, event: Event) -> int:
        """Return the status that Marquez answers with."""
        if "\\u0000" in json.dumps(event):
            return 500  # PostgreSQL's JSONB
        datasets = [*(event.get("inputs") or []), *(event.get("outputs") or [])]
        if not all(NAMESPACE.fullmatch(each["namespace"]) for each in datasets):
            return 400
        if not all(name.strip() for each in datasets for name in _fields(each)):
            return 400
        if any(len(name) > 255 for each in datasets for name in _fields(each)):
            return 500
        with self._lock:
            self.events.append(event)
            self._apply(event)
        return 201

    def _apply(self, event: Event) -> None:
        job = (event["job"]["namespace"], event["job"]["name"])
        run = self.runs.setdefault(event["run"]["runId"], Run(id=event["run"]["runId"], job=job))
        run.facets |= event["run"].get("facets") or {}
        run.state = ENDED.get(event["eventType"], "RUNNING")
        for each in event.get("inputs") or []:
            name = self._keep(each, job)
            run.inputs[name] = self.writers.setdefault(name, None)
        for each in event.get("outputs") or []:
            name = self._keep(each, job)
            self.writers[name] = run.id
            run.outputs.add(name)
        if event["eventType"] in ENDED:
            self.edges[job] = (set(run.inputs), set(run.outputs))

    def _keep(self, told: dict[str, Any], job: Name) -> Name:
        name = (told["namespace"], told["name"])
        kept = self.datasets.setdefault(name, {"facets": {}, "fields": []})
        kept["facets"] |= {**(told.get("facets") or {}), **(told.get("inputFacets") or {})}
        kept["fields"] = _fields(told) or kept["fields"]
        return name

    # --- what it answers -----------------------------------------------------------------------------------

    def answer(self, path: str, query: dict[str, list[str]]) -> Any:
        """Return what a GET is answered with; None for not found."""
        match [unquote(part) for part in path.removeprefix("/api/v1/").split("/")]:
            case ["events", "lineage"]:
                return self._page(query)
            case ["jobs", "runs", run_id]:
                run = self.runs.get(run_id)
                return run and {"id": run.id, "state": run.state, "facets": run.facets}
            case ["jobs", "runs", run_id, "facets"]:
                run = self.runs.get(run_id)
                return run and {"runId": run.id, "facets": run.facets}
            case ["namespaces", namespace, "datasets", name]:
                kept = self.datasets.get((namespace, name))
                return kept and {
                    "name": name,
                    "facets": kept["facets"],
                    "fields": [
                        {"name": each, "tags": sorted(self._tags_of(namespace, name, each))}
                        for each in kept["fields"]
                    ],
                }
            case ["runlineage", "upstream"]:
                return {"runs": [self._told(run) for run in self._upstream(query["runId"][0])]}
            case ["lineage"]:
                return {"graph": self._graph(query["nodeId"][0])}
            case ["column-lineage"]:
                return {"graph": self._column_graph(query["nodeId"][0])}
            case _:
                return None

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Return raw events of a time window, the oldest first."""
        after, before = (datetime.fromisoformat(query[name][0]) for name in ("after", "before"))
        offset, limit = (int(query[name][0]) for name in ("offset", "limit"))
        assert query["sortDirection"] == ["asc"]
        events = sorted(self.events, key=_time_of)
        found = [each for each in events if after <= _time_of(each) < before]
        return {"events": found[offset : offset + limit], "totalCount": len(found)}

    def _upstream(self, run_id: str) -> list[Run]:
        found: dict[str, Run] = {}
        pending = [run_id]
        while pending:
            run = self.runs.get(pending.pop())
            if run is not None and run.id not in found:
                if None in run.inputs.values():
                    raise NobodyWroteItError
                found[run.id] = run
                pending.extend(writer for writer in run.inputs.values() if writer)
        return list(found.values())

    def _told(self, run: Run) -> dict[str, Any]:
        return {
            "run": {"id": run.id, "status": run.state},
            "job": {"namespace": run.job[0], "name": run.job[1]},
            "inputs": [
                {"namespace": name[0], "name": name[1], "producedByRunId": writer}
                for name, writer in run.inputs.items()
            ],
            "outputs": [{"namespace": name[0], "name": name[1]} for name in run.outputs],
        }

    def _graph(self, node: str) -> list[dict[str, Any]]:
        """Return all nodes that hang together with `node`, each with its edges."""
        links = [
            (f"dataset:{name[0]}:{name[1]}", f"job:{job[0]}:{job[1]}")
            for job, (inputs, _) in self.edges.items()
            for name in inputs
        ]
        links += [
            (f"job:{job[0]}:{job[1]}", f"dataset:{name[0]}:{name[1]}")
            for job, (_, outputs) in self.edges.items()
            for name in outputs
        ]
        reached: set[str] = {node}
        before: set[str] = set()
        while reached != before:
            before = set(reached)
            reached |= {other for link in links if set(link) & before for other in link}
        return [
            {
                "id": each,
                "inEdges": [{"origin": a, "destination": b} for a, b in links if b == each],
                "outEdges": [{"origin": a, "destination": b} for a, b in links if a == each],
            }
            for each in sorted(reached)
        ]

    def _column_graph(self, node: str) -> list[dict[str, Any]]:
        found = []
        for (namespace, name), kept in self.datasets.items():
            if node != f"dataset:{namespace}:{name}":
                continue
            for column, told in kept["facets"].get("columnLineage", {}).get("fields", {}).items():
                inputs = [
                    {
                        **{key: each[key] for key in ("namespace", "field")},
                        "dataset": each["name"],
                        "transformationType": told.get("transformationType"),
                        "transformationDescription": told.get("transformationDescription"),
                    }
                    for each in told["inputFields"]
                    if each["field"]
                    in self.datasets.get((each["namespace"], each["name"]), {}).get("fields", [])
                ]
                if column in kept["fields"] and inputs:
                    found.append(
                        {
                            "id": f"datasetField:{namespace}:{name}:{column}",
                            "type": "DATASET_FIELD",
                            "data": {"field": column, "inputFields": inputs},
                        }
                    )
        return found

    def _tags_of(self, namespace: str, name: str, column: str) -> set[str]:
        return {tag for *place, tag in self.tags if place == [namespace, name, column]}

    def tag(self, path: str) -> int:
        match [unquote(part) for part in path.removeprefix("/api/v1/").split("/")]:
            case ["namespaces", namespace, "datasets", name, "fields", column, "tags", tag]:
                if column not in self.datasets.get((namespace, name), {}).get("fields", []):
                    return 404
                with self._lock:
                    self.tags.add((namespace, name, column, tag))
                return 201
            case _:
                return 404


class _Handler(LocalHandler, BaseHTTPRequestHandler):
    """How the stand-in is spoken to."""

    site: StandIn

    def do_POST(self) -> None:
        body = self.body()
        self.site.calls += 1
        if self._misbehaves():
            return
        path = urlsplit(self.path).path
        if path == "/api/v1/lineage":
            self._say(self.site.take(json.loads(body)))
        else:
            self._say(self.site.tag(path))

    def do_PUT(self) -> None:
        self.body()
        self._say(200)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        try:
            found = self.site.answer(parts.path, parse_qs(parts.query))
        except NobodyWroteItError:
            self._say(500)
            return
        self._say(404 if found is None else 200, found)

    def _misbehaves(self) -> bool:
        trouble = self.site.trouble
        if trouble.isdigit():
            self._say(int(trouble))
        elif trouble == "garbage":
            self.wfile.write(b"\x00\x01 this is no HTTP \xff\r\n\r\n")
            self.close_connection = True
        elif trouble == "nothing":
            time.sleep(1.5)
            self.close_connection = True
        return bool(trouble)

    def _say(self, status: int, body: Any = None) -> None:
        self.say(status, b"" if body is None else json.dumps(body).encode())


def _time_of(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["eventTime"])


def _fields(dataset: dict[str, Any]) -> list[str]:
    return [each["name"] for each in (dataset.get("facets") or {}).get("schema", {}).get("fields", [])]
