"""The digest of a function: all that it brings along is in it, and it is the same in every process."""

from __future__ import annotations

import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from functools import cache, partial, wraps
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.operators.fingerprints import digest_of_value, plain

pytestmark = pytest.mark.airflow

LIMIT = 1
PLACES = {"outbox": ["/a", "/b"]}
LOG = logging.getLogger(__name__)
CONNECTION = object()


def digest(value: Any) -> str:
    return digest_of_value(value, "python_callable")


def closed_over(value: Any) -> Callable[..., Any]:
    def act() -> Any:
        return value

    return act


def with_default(value: Any) -> Callable[..., Any]:
    def act(limit: Any = value) -> Any:
        return limit

    return act


def with_keyword_default(value: Any) -> Callable[..., Any]:
    def act(*, limit: Any = value) -> Any:
        return limit

    return act


def wrapped(value: Any) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper() -> Any:
            return value, function()

        return wrapper

    @decorate
    def act() -> int:
        return 1

    return act


def two_deep(value: Any) -> Callable[..., Any]:
    return closed_over([closed_over(value)])


def cached(value: Any) -> Any:
    return cache(closed_over(value))


def applied(value: Any) -> Any:
    return partial(closed_over(0), value)


def method_of(value: Any) -> Any:
    return Owner(value).act


class Owner(dict[str, Any]):
    """An object that is a value."""

    def __init__(self, value: Any) -> None:
        super().__init__(value=value)

    def act(self) -> Any:
        return self["value"]


BRINGING: dict[str, Callable[[Any], Any]] = {
    "a variable of an outer function": closed_over,
    "a default": with_default,
    "a default of a keyword": with_keyword_default,
    "a decorator's argument": wrapped,
    "a function in a list": two_deep,
    "behind a cache": cached,
    "a part of its arguments": applied,
    "an object of which it is a method": method_of,
}


@pytest.mark.parametrize("make", BRINGING.values(), ids=BRINGING.keys())
def test_what_a_function_brings_along_is_in_its_digest(make: Callable[[Any], Any]) -> None:
    assert digest(make(1)) == digest(make(1))
    assert digest(make(1)) != digest(make(2))
    assert digest(make({"to": ["/a"]})) != digest(make({"to": ["/b"]}))


@pytest.mark.parametrize("make", BRINGING.values(), ids=BRINGING.keys())
def test_what_has_no_digest_is_refused_where_a_function_brings_it_along(make: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"argument python_callable.*a builtins\.object has no dig"):
        digest(make(object()))


DECORATED = """
from tenacity import retry, stop_after_attempt
LIMIT = {limit}

@retry(stop=stop_after_attempt(3))
def act(most={most}):
    return {returns}
"""


def decorated(folder: Path, *, limit: int = 1, most: int = 1, returns: str = "LIMIT, most") -> Any:
    """Return a function of a DAG file with the decorator of a library around it."""
    file = Path(mkdtemp(dir=folder), "its_file.py")
    file.write_text(DECORATED.format(limit=limit, most=most, returns=returns))
    return runpy.run_path(str(file))["act"]


def test_what_a_decorator_of_a_library_is_put_around_is_bound(tmp_path: Path) -> None:
    before = digest(decorated(tmp_path))
    assert before == digest(decorated(tmp_path))
    for changed in ({"limit": 2}, {"most": 2}, {"returns": "most, LIMIT"}):
        assert before != digest(decorated(tmp_path, **changed))


def test_the_variable_without_a_digest_is_named() -> None:
    with pytest.raises(
        InvalidRequestError, match=r"python_callable \(act, variable value\): a builtins\.obj"
    ):
        digest(closed_over(object()))
    with pytest.raises(
        InvalidRequestError, match=r"python_callable \(act, default of limit\): a builtins\.obj"
    ):
        digest(with_default(object()))


def uses_globals() -> Any:
    if CONNECTION:
        LOG.info("not more than %d", LIMIT)
    return helper()


def helper() -> Any:
    return list(PLACES["outbox"]), uses_globals  # in a circle, too


def other_helper() -> Any:
    return []


CHANGED: dict[str, tuple[str, Any]] = {
    "a constant that it names": ("LIMIT", 2),
    "a constant that a function of the file names": ("PLACES", {"outbox": ["/a"]}),
    "a function of the file": ("helper", other_helper),
    "a function that is imported": ("helper", os.getcwd),
    "a logger": ("LOG", logging.getLogger("other")),
}


@pytest.mark.parametrize(("name", "value"), CHANGED.values(), ids=CHANGED.keys())
def test_what_a_function_names_of_its_file_is_in_its_digest(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    before = digest(uses_globals)
    assert before == digest(uses_globals)
    monkeypatch.setitem(globals(), name, value)
    assert before != digest(uses_globals)


def test_an_object_of_the_file_that_is_no_constant_is_told_by_its_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = digest(uses_globals)
    monkeypatch.setitem(globals(), "CONNECTION", object())
    assert before == digest(uses_globals)
    monkeypatch.setitem(globals(), "CONNECTION", Path)
    assert before != digest(uses_globals)


def test_modules_loggers_and_what_is_built_in_can_be_closed_over() -> None:
    kind: Any = json.JSONDecoder
    others: list[Any] = [len, datetime.now, json.dumps]
    module, log = json, LOG

    def act() -> Any:
        return module, log, kind, others

    before = digest(act)
    assert before == digest(act)
    for place, other in enumerate([max, datetime.today, json.loads]):
        others[place] = other
        after = digest(act)
        assert before != after
        before = after
    kind = json.JSONEncoder
    assert before != digest(act)


def test_a_variable_that_is_not_assigned_yet_is_none() -> None:
    def act() -> Any:
        return later

    before = digest(act)
    later = 1
    assert before != digest(act)


def test_functions_in_a_set_are_refused_where_their_order_would_count() -> None:
    with pytest.raises(InvalidRequestError, match="functions in a set have no digest; put them into a list"):
        digest(closed_over({helper, other_helper}))


FILE = """
import json, logging
from os import environ
LIMITS = {"rows": 5, "places": {"b", "a", "c"}}
LOG = logging.getLogger(__name__)
class Client: ...
CLIENT = Client()
def helper(x=LIMITS): return act, json.dumps(x["rows"]), environ["HOME"], CLIENT, LOG
def make(limit):
    def act(n=frozenset({"x", "y"})): return helper(limit), n
    return act
act = make({"q", "p"})
"""
SCRIPT = """
import importlib, pathlib, sys
name = f"unusual_prefix_{sys.argv[1]}_its_file"
place = pathlib.Path(sys.argv[2], name + ".py")
place.write_text(sys.argv[3])
sys.path.insert(0, sys.argv[2])
its_file = importlib.import_module(name)
from airflow_approvals.operators.fingerprints import digest_of_value
print(digest_of_value(its_file.act, "python_callable"))
"""


def test_the_digest_is_the_same_in_every_process_wherever_the_file_lies(tmp_path: Path) -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, 40 * seed, str(tmp_path), FILE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.split()[-1]
        for seed in ("1", "2")
    }
    assert len(told) == 1


def path(uri: str = "s3://bucket/key", conn_id: str | None = "partner", **options: Any) -> Any:
    return ObjectStoragePath(uri, conn_id=conn_id, **options)


PATHS: dict[str, Any] = {
    "another key": path("s3://bucket/other"),
    "another bucket": path("s3://tub/key"),
    "another connection": path(conn_id="other"),
    "no connection": path(conn_id=None),
    "another store": path("file:///bucket/key"),
    "other options": path(endpoint_url="https://s3.example.com"),
    "its text": str(path()),
}


@pytest.mark.parametrize("other", PATHS.values(), ids=PATHS.keys())
def test_an_object_storage_path_is_bound_by_address_connection_and_options(other: Any) -> None:
    assert digest(path()) == digest(path())
    assert digest(path()) != digest(other)


def test_options_of_a_path_that_is_shown_are_a_digest() -> None:
    shown = plain(path(secret="do not show"), "where")
    assert "do not show" not in json.dumps(shown)
    assert shown["object_storage"]["conn_id"] == "partner"
    with pytest.raises(InvalidRequestError, match=r"where\.storage_options\.session: a builtins\.object"):
        plain(path(session=object()), "where")
