"""The mapping of checks to controls: controls.yaml, read and held against the checks that there are."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.evidence.checks import Checked, check_names

MAPPING_FILE = Path(__file__).parent / "controls.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Framework(_Part):
    """A catalog that controls are of."""

    title: str
    href: str


class Control(_Part):
    """One control: what the package shows about it, and what it does not."""

    id: str  # as OSCAL writes it
    name: str  # as people write it
    framework: str
    title: str
    shows: str
    does_not_show: str
    checks: Annotated[tuple[str, ...], Field(min_length=1)]


class Mapping(_Part):
    """The whole file."""

    version: Literal[1]
    frameworks: dict[str, Framework]
    controls: tuple[Control, ...]


@cache
def mapping() -> Mapping:
    """Return the mapping; raise `ConfigurationError` where it names what is not there."""
    found = Mapping.model_validate(yaml.safe_load(MAPPING_FILE.read_text(encoding="utf-8")))
    unknown = {name for control in found.controls for name in control.checks} - check_names()
    unknown |= {control.framework for control in found.controls} - found.frameworks.keys()
    if unknown:
        raise ConfigurationError(
            f"{MAPPING_FILE.name}: unknown checks or frameworks {', '.join(sorted(unknown))}"
        )
    return found


def holds(control: Control, checks: Iterable[Checked]) -> bool:
    """Return whether every check of `control` holds."""
    return all(each.holds for each in checks if each.name in control.checks)
