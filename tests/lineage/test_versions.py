"""Facets are written in the versions that the OpenLineage client of this environment writes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from openlineage.client import generated

from airflow_approvals.lineage import facets
from airflow_approvals.lineage.events import SCHEMA_URL

CALL = re.compile(r'standard\(\s*"([\d-]+)",\s*"([\w/]+)"')
USED = sorted(set(CALL.findall(Path(facets.__file__).read_text(encoding="utf-8"))))


def known() -> dict[str, str]:
    """Return the address of every definition that the client knows, by its name."""
    modules = [
        import_module(f"{generated.__name__}.{each.name}") for each in iter_modules(generated.__path__)
    ]
    found = [
        each._get_schema()
        for module in modules
        for each in vars(module).values()
        if hasattr(each, "_get_schema")
    ]
    return {address.rpartition("/")[2]: address for address in found}


@pytest.mark.parametrize(("version", "name"), USED, ids=[name for _, name in USED])
def test_a_standard_facet_has_the_version_of_the_client(version: str, name: str) -> None:
    facet = facets.standard(version, name)
    definition = facet["_schemaURL"].rpartition("/")[2]
    assert facet["_schemaURL"] == known()[definition]


def test_events_have_the_version_of_the_client() -> None:
    assert known()["RunEvent"] == SCHEMA_URL
    assert len(USED) > 10, "the facets are written in another way now"
