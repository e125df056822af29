"""The README says what the code does: each of its tables and blocks is held against the code it speaks of."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from airflow_approvals.cli.exits import TABLE
from airflow_approvals.cli.grammar import COMMANDS, Command, Group
from airflow_approvals.core.policy import parse_policy_file
from airflow_approvals.core.policy_channels import KINDS
from airflow_approvals.provider import get_provider_info
from airflow_approvals.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """Return the first fenced block after `<!-- marker -->`."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert found, f"README has no block {marker}"
    return found[1]


def table(marker: str) -> list[list[str]]:
    """Return the cells of the rows of the table after `<!-- marker -->`."""
    found = re.search(rf"<!-- {marker} -->\n\|.*\n\|[-|]+\n((?:\|.*\n)*)", README)
    assert found, f"README has no table {marker}"
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


def test_the_channels_example_is_read_by_the_real_parser_and_has_every_kind() -> None:
    page = (ROOT / "docs" / "channels.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- channels -->\n```yaml\n(.*?)```", page, re.DOTALL)
    assert found
    policy_file = parse_policy_file(found[1], name="channels.md")
    assert sorted(channel.kind for channel in policy_file.channels.values()) == sorted(KINDS)
    assert {row.split("`")[1] for row in re.findall(r"^\| `\w+` \|", page, re.MULTILINE)} == set(KINDS)


def test_the_settings_are_those_of_the_provider_and_of_the_code() -> None:
    assert table("settings") == expected_settings()
    options = get_provider_info()["config"]["approvals"]["options"]
    assert {field.name for field in fields(Settings)} - {"home"} == set(options)


def test_the_commands_are_those_of_the_command_line() -> None:
    assert table("commands") == expected_commands()


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    assert table("exits") == [[f"{row.code:d}", row.meaning] for row in TABLE]


def test_every_make_target_that_the_readme_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z][a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_linked_file_is_there() -> None:
    for target in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / target).is_file(), target


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
