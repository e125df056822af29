"""Is an event what the OpenLineage specification says: checked offline against its schemas, and ours.

The specification's schemas are kept beside the checkout, in `../shared/openlineage-spec`; where they are not,
`load` says so and the tests that need them are skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

SPEC = Path(__file__).parents[3] / "shared" / "openlineage-spec"
CORE = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
OURS = "https://airflow-approvals.github.io/lineage/"
FRAME: dict[str, Any] = {
    "$id": CORE,
    "$ref": "#/$defs/RunEvent",
    "$defs": {
        "BaseFacet": {
            "type": "object",
            "required": ["_producer", "_schemaURL"],
            "properties": {
                "_producer": {"type": "string", "format": "uri"},
                "_schemaURL": {"type": "string", "format": "uri"},
            },
        },
        "RunFacet": {"$ref": "#/$defs/BaseFacet"},
        "DatasetFacet": {"$ref": "#/$defs/BaseFacet"},
        "Named": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}},
        },
        "RunEvent": {
            "type": "object",
            "required": ["eventType", "eventTime", "producer", "schemaURL", "run", "job"],
            "properties": {
                "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
                "eventTime": {"type": "string", "format": "date-time"},
                "producer": {"type": "string", "format": "uri"},
                "run": {"required": ["runId"], "properties": {"runId": {"type": "string", "format": "uuid"}}},
                "job": {"$ref": "#/$defs/Named"},
                "inputs": {"type": "array", "items": {"$ref": "#/$defs/Named"}},
                "outputs": {"type": "array", "items": {"$ref": "#/$defs/Named"}},
            },
        },
    },
}
"""What every event has, for where the specification is not."""
FOREIGN = re.compile(r"airflow[A-Z_]?\w*|unknownSourceAttribute")
"""Facets of Airflow's provider, which names no schema of their own."""

Event = dict[str, Any]


class Spec:
    """The schemas, and what is wrong with an event."""

    def __init__(self, folder: Path | None) -> None:
        """Read the schemas in `folder`; without one, the frame of an event and our facets are checked."""
        self._is_whole = folder is not None
        found = [FRAME] if folder is None else [json.loads(file.read_text()) for file in _schemas_in(folder)]
        self._schemas = {schema["$id"]: schema for schema in [*found, *own_schemas()]}
        resources = [
            (schema_id, Resource.from_contents(schema, default_specification=DRAFT202012))
            for schema_id, schema in self._schemas.items()
        ]
        self._registry: Any = Registry().with_resources(resources)
        self._standard = {} if folder is None else _standard_keys(folder)

    def check(self, events: Iterable[Event]) -> None:
        """Raise `AssertionError` naming everything that is wrong."""
        events = list(events)
        assert events, "no event was told at all"
        problems = [problem for event in events for problem in self.problems(event)]
        assert not problems, "\n".join(problems[:20])

    def problems(self, event: Event) -> list[str]:
        """Return what is wrong with one event."""
        where = f"{event.get('eventType')} {event.get('job', {}).get('name')}"
        found = [f"{where}: {problem}" for problem in self._against(CORE, event)]
        found += [
            f"{where}: {problem}" for problem in self._against(event.get("schemaURL", "no schemaURL"), event)
        ]
        for entity, key, facet in facets_of(event):
            found += [f"{where}: {entity} {key}: {problem}" for problem in self._facet(entity, key, facet)]
        return found

    def _facet(self, entity: str, key: str, facet: Any) -> list[str]:
        if not isinstance(facet, dict):
            return [f"is {type(facet).__name__}, no facet"]
        url = str(facet.get("_schemaURL"))
        if not self._is_whole and not key.startswith("airflowApprovals_"):
            return self._against(f"{CORE}#/$defs/BaseFacet", facet)
        found = self._against(url, facet)
        newest = self._standard.get((entity, key))
        if newest is not None:
            found += self._against(newest, facet)
        elif any(key == known for _, known in self._standard):
            found.append("is a standard key on the wrong entity")
        elif not FOREIGN.fullmatch(key) or url.startswith(OURS):
            found += self._own(key, facet, url)
        return found

    def _own(self, key: str, facet: dict[str, Any], url: str) -> list[str]:
        if not key.startswith("airflowApprovals_") or not url.startswith(OURS):
            return [f"is no standard facet and not one of ours ({url})"]
        definition = url.rpartition("/")[2]
        named = self._schemas[url.partition("#")[0]]["$defs"][definition]["allOf"][1]["properties"]
        unnamed = facet.keys() - named.keys() - {"_producer", "_schemaURL", "_deleted"}
        return [f"has the unnamed fields {sorted(unnamed)}"] if unnamed else []

    def _against(self, url: str, value: Any) -> list[str]:
        if url.partition("#")[0] not in self._schemas:
            return [f"the schema {url} is not known"]
        validator: Any = Draft202012Validator({"$ref": url}, registry=self._registry, format_checker=_FORMATS)
        return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]


@cache
def load() -> Spec | None:
    """Return the specification; None where it is not beside the checkout."""
    return Spec(SPEC) if SPEC.is_dir() else None


def own_schemas() -> list[dict[str, Any]]:
    """Return the schemas that this package publishes."""
    folder = files("airflow_approvals.lineage") / "schemas"
    return [
        json.loads(file.read_text())
        for version in folder.iterdir()
        for file in version.iterdir()
        if file.name.endswith(".json")
    ]


def facets_of(event: Event) -> Iterable[tuple[str, str, Any]]:
    """Yield entity, key and facet of everything that an event carries."""
    for entity in ("run", "job"):
        for key, facet in (event.get(entity, {}).get("facets") or {}).items():
            yield entity, key, facet
    for side in ("inputs", "outputs"):
        for dataset in event.get(side) or []:
            for key, facet in (dataset.get("facets") or {}).items():
                yield "dataset", key, facet
            entity = side.removesuffix("s")
            for key, facet in (dataset.get(f"{entity}Facets") or {}).items():
                yield entity, key, facet


def _schemas_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def _standard_keys(folder: Path) -> dict[tuple[str, str], str]:
    """Return the newest schema of every standard facet, by entity and key."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted((folder / "spec" / "facets").glob("*.json")):
        schema = json.loads(path.read_text())
        for key, place in (schema.get("properties") or {}).items():
            reference = place.get("$ref")
            if reference:
                for entity in _entities(schema, reference.rpartition("/")[2]):
                    found[entity, key] = f"{schema['$id']}{reference}"
    return found


def _entities(schema: dict[str, Any], definition: str) -> Iterable[str]:
    text = json.dumps(schema["$defs"][definition])
    bases = set(re.findall(r"OpenLineage\.json#/\$defs/(\w+Facet)", text))
    for reference in re.findall(r'"#/\$defs/(\w+)"', text):
        bases |= set(
            re.findall(r"OpenLineage\.json#/\$defs/(\w+Facet)", json.dumps(schema["$defs"][reference]))
        )
    names = {
        "RunFacet": "run",
        "JobFacet": "job",
        "DatasetFacet": "dataset",
        "InputDatasetFacet": "input",
        "OutputDatasetFacet": "output",
    }
    return [names[base] for base in sorted(bases & names.keys())]


_FORMATS = FormatChecker(formats=())
"""Of our own: the library passes over formats whose checkers are not installed."""


@_FORMATS.checks("uuid", raises=ValueError)
def _uuid(value: object) -> bool:
    return not isinstance(value, str) or str(UUID(value)) == value.lower()


@_FORMATS.checks("date-time", raises=ValueError)
def _date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return "T" in value and datetime.fromisoformat(value).tzinfo is not None


@_FORMATS.checks("uri", raises=ValueError)
def _uri(value: object) -> bool:
    if not isinstance(value, str):
        return True
    parts = urlsplit(value)
    return bool(parts.scheme) and bool(parts.netloc or parts.path)
