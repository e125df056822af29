"""README and reference say what the code does: their tables and blocks are held against the code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn
from unittest.mock import MagicMock

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.routing import Route

from airflow_approvals.cli.exits import TABLE
from airflow_approvals.cli.grammar import COMMANDS, Command, Group
from airflow_approvals.core.expressions import FIELDS
from airflow_approvals.core.model import Action
from airflow_approvals.core.policy import Group as PolicyGroup
from airflow_approvals.core.policy import Match, Policy, PolicyFile, parse_policy_file
from airflow_approvals.core.policy_channels import KINDS
from airflow_approvals.core.policy_schema import DESCRIPTIONS
from airflow_approvals.core.policy_words import duration_text
from airflow_approvals.provider import get_provider_info
from airflow_approvals.settings import Settings, read_settings
from airflow_approvals.web.app import API, create_app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = "docs/reference.md"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """Return the README's first fenced block after `<!-- marker -->`."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert found, f"README has no block {marker}"
    return found[1]


def table(marker: str, page: str = "README.md") -> list[list[str]]:
    """Return the cells of the rows of the table after `<!-- marker -->`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- {marker} -->\n\|.*\n\|[-|]+\n((?:\|.*\n)*)", text)
    assert found, f"{page} has no table {marker}"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


def region(path: str, name: str) -> str:
    """Return what stands between `[START name]` and `[END name]`, its indentation kept."""
    source = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(rf"^ *# \[START {name}\]\n(.*?)^ *# \[END {name}\]", source, re.DOTALL | re.MULTILINE)
    assert found, f"{path} has no region {name}"
    return found[1].rstrip() + "\n"


def expected_settings() -> list[list[str]]:
    options = get_provider_info()["config"]["approvals"]["options"]
    return [
        [f"`{name}`", f"`{option['default']}`" if option["default"] else "", option["description"]]
        for name, option in options.items()
    ]


def words(marker: str) -> list[str]:
    """Return what stands in backticks in the first column of a table of docs/policy-file.md."""
    rows = table(marker, "docs/policy-file.md")
    return sorted(word for row in rows for word in re.findall(r"`([^`]+)`", row[0]))


def our_app() -> FastAPI:
    def never() -> NoReturn:
        raise AssertionError("a description needs no service")

    return create_app(never, read_settings(), MagicMock())


def expected_calls() -> list[str]:
    paths = our_app().openapi()["paths"]
    return sorted(f"`{method.upper()} {path.removeprefix(API)}`" for path in paths for method in paths[path])


def expected_commands() -> list[list[str]]:
    rows: list[list[str]] = []
    for command in COMMANDS:
        parts: tuple[Command, ...] = command.commands if isinstance(command, Group) else (command,)
        prefix = f"{command.name} " if isinstance(command, Group) else ""
        rows += [[f"`{prefix}{part.name}`", part.help] for part in parts]
    return rows


def test_the_smallest_dag_is_a_region_of_a_tested_file() -> None:
    assert block("region: dags/customer_counts.py smallest") == region("dags/customer_counts.py", "smallest")


def test_the_dag_for_personal_data_is_a_region_of_a_tested_file() -> None:
    assert block("region: dags/customer_export.py pii") == region("dags/customer_export.py", "pii")


def test_there_is_no_other_python_in_the_readme() -> None:
    assert README.count("```python") == README.count("<!-- region:")


def test_the_policy_example_is_read_by_the_real_parser_without_a_notice() -> None:
    policy_file = parse_policy_file(block("policy"), name="README.md")
    assert [policy.name for policy in policy_file.policies] == ["partner-export"]
    assert policy_file.notices() == ()


def test_the_policy_example_covers_the_dags_beside_it() -> None:
    policy_file = parse_policy_file(block("policy"), name="README.md")
    destinations = re.findall(r'destination="\{\{ var\.value\.customer_folder \}\}(.*)"', README)
    assert len(destinations) == README.count("ApprovedExportOperator(")
    for destination in destinations:
        place = f"file:///srv/customers{destination.replace('{{ params.batch }}', 'customers')}"
        assert (
            policy_file.match(Action(kind="export", destination=place), dag_id="any").name == "partner-export"
        )


@pytest.mark.parametrize(
    ("marker", "keys"),
    [
        ("file keys", PolicyFile.model_fields),
        ("group keys", PolicyGroup.model_fields),
        ("policy keys", Policy.model_fields),
        ("match keys", Match.model_fields),
        (
            "expressions",
            [f"{name}.{key}" if key else name for name in FIELDS for key in FIELDS[name] or [""]],
        ),
    ],
)
def test_the_words_of_the_policy_file_are_those_of_the_code(marker: str, keys: Iterable[str]) -> None:
    assert words(marker) == sorted(keys)


@pytest.mark.parametrize(
    ("marker", "model"),
    [("file keys", PolicyFile), ("group keys", PolicyGroup), ("policy keys", Policy), ("match keys", Match)],
)
def test_editors_are_told_of_a_key_what_the_page_tells(marker: str, model: type[BaseModel]) -> None:
    for row in table(marker, "docs/policy-file.md"):
        said = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", row[1])
        clause = max((each.strip() for each in re.split(r"[;,:.()`]", said)), key=len)
        for key in re.findall(r"`([^`]+)`", row[0]):
            # A cell that only names the keys inside tells nothing that could be contradicted.
            assert len(clause) < len("channels.") or clause.lower() in DESCRIPTIONS[model][key].lower(), key


def test_what_a_policy_does_unless_told_otherwise_is_what_the_code_does() -> None:
    told = {row[0].strip("`"): row[2].strip("`") for row in table("policy keys", "docs/policy-file.md")}
    assert {name for name, text in told.items() if text == "needed"} == {
        name for name, field in Policy.model_fields.items() if field.is_required()
    }
    for name, text in told.items():
        default = Policy.model_fields[name].default
        if isinstance(default, timedelta):
            assert text == duration_text(default), name
        elif isinstance(default, bool | str):
            assert text == str(default).lower(), name


def test_the_channels_example_is_read_by_the_real_parser_and_has_every_kind() -> None:
    page = (ROOT / "docs" / "channels.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- channels -->\n```yaml\n(.*?)```", page, re.DOTALL)
    assert found
    policy_file = parse_policy_file(found[1], name="channels.md")
    assert sorted(channel.kind for channel in policy_file.channels.values()) == sorted(KINDS)
    assert {row.split("`")[1] for row in re.findall(r"^\| `\w+` \|", page, re.MULTILINE)} == set(KINDS)


def test_the_settings_are_those_of_the_provider_and_of_the_code() -> None:
    assert table("settings", REFERENCE) == expected_settings()
    options = get_provider_info()["config"]["approvals"]["options"]
    assert {field.name for field in fields(Settings)} - {"home"} == set(options)


def test_the_commands_are_those_of_the_command_line() -> None:
    assert table("commands", REFERENCE) == expected_commands()


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    assert table("exits", REFERENCE) == [[f"{row.code:d}", row.meaning] for row in TABLE]


def test_the_calls_are_those_of_the_rest_api() -> None:
    assert sorted(row[0] for row in table("routes", REFERENCE)) == expected_calls()


def test_every_address_of_ours_is_a_route() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    named = set(re.findall(r"`/approvals(/[^`]*)`", pages)) - {API}
    assert named
    assert named <= {route.path for route in our_app().routes if isinstance(route, Route)}


def test_the_changelog_speaks_of_what_is_not_released_yet() -> None:
    assert "## Unreleased" in CHANGELOG


@pytest.mark.airflow
@pytest.mark.parametrize("name", [row[0].strip("`") for row in table("operators") + table("pii")])
def test_what_the_readme_imports_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(import_module(module), attribute)


@pytest.mark.airflow
@pytest.mark.parametrize(
    "path", ["dags/customer_counts.py", "dags/customer_export.py", "demo/dags/attacks.py"]
)
def test_every_dag_that_we_show_is_loaded_without_errors(path: str) -> None:
    # Its place since Airflow 3.2, and the one before.
    place = "airflow.dag_processing.dagbag"
    module = import_module(place if find_spec(place) else "airflow.models.dagbag")
    bag = module.DagBag(ROOT / path)
    assert bag.import_errors == {}
    assert bag.dags
