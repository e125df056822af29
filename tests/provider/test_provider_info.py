from __future__ import annotations

import json
from dataclasses import fields
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

import pytest

from airflow_approvals import __version__
from airflow_approvals.provider import get_provider_info
from airflow_approvals.settings import SECTION, Settings

pytestmark = pytest.mark.airflow


def options() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = get_provider_info()["config"][SECTION]["options"]
    return found


def test_airflow_finds_valid_what_we_say_about_ourselves() -> None:
    import jsonschema

    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_airflow_finds_us_by_our_entry_point() -> None:
    found = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.value == "airflow_approvals.provider:get_provider_info"
    ]
    assert found
    assert found[0].load() is get_provider_info


def test_every_setting_is_an_option_and_every_option_a_setting() -> None:
    not_options = {"home"}  # AIRFLOW_HOME itself
    assert set(options()) == {field.name for field in fields(Settings)} - not_options


def test_every_option_says_what_it_is_for_in_its_own_type() -> None:
    types = {field.name: field.type for field in fields(Settings)}
    for name, option in options().items():
        assert option["description"].endswith("."), name
        assert option["version_added"] <= __version__, name
        words = {"str": "string", "float": "float", "bool": "boolean"}
        assert option["type"] == words[str(types[name])], name


def test_what_must_stay_secret_is_marked_sensitive() -> None:
    assert [name for name, option in options().items() if option["sensitive"]] == ["worker_secret"]


def test_the_plugin_is_registered_by_its_entry_point_alone() -> None:
    assert "plugins" not in get_provider_info()


def modules_and_names() -> list[str]:
    info = get_provider_info()
    modules: list[str] = [
        module
        for kind in ("operators", "sensors", "triggers", "hooks")
        for group in info[kind]
        for module in group["python-modules"]
    ]
    return [*modules, *info["extra-links"], *info["db-managers"], *info["cli"]]


@pytest.mark.parametrize("path", modules_and_names())
def test_everything_that_is_named_is_there(path: str) -> None:
    if path.split(".")[-2] in ("operators", "sensors", "triggers", "hooks"):
        import_module(path)
        return
    module, _, name = path.rpartition(".")
    assert callable(getattr(import_module(module), name))
