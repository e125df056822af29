"""Which places a glob covers, and that no spelling of a place gets around it."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_approvals.core.errors import InvalidRequestError, NoPolicyError
from airflow_approvals.core.model import Action
from airflow_approvals.core.policy import check_asserted, parse_policy_file
from airflow_approvals.core.policy_match import check_glob, covers, covers_name, places_of

COVERED = [
    ("s3://partner-*/**", "s3://partner-x/a/b.csv"),
    ("s3://partner-*/**", "s3://partner-x/a"),
    ("s3://partner-*/**", "s3://partner-x"),
    ("s3://partner-*/**", "s3://partner-x/"),
    ("s3://partner-*/**", "S3://partner-x/a"),
    ("s3://partner-*/**", "s3://PARTNER-x/a"),
    ("s3://partner-*/**", "s3a://partner-x/a"),
    ("s3://partner-*/**", "s3://other_account@partner-x/a"),
    ("s3://partner-*/**", "s3://partner-x/day=2024-01-01 10%3A00/a"),
    ("s3://acct@partner-x/**", "s3://acct@partner-x/a"),
    ("s3://b/*.csv", "s3://b/.csv"),
    ("s3://b/*.csv", "s3://b/a?b#c.csv"),
    ("s3://b/**/x", "s3://b/x"),
    ("s3://b/**/x", "s3://b/1/2/x"),
    ("s3://b/**/m/**/x", "s3://b/1/m/2/m/x"),
    ("file:///*/outbox/**", "file:///srv/outbox/x.csv"),
    ("file:///*/outbox/**", "/srv/outbox/x.csv"),
    ("/srv/**", "file:///srv/a"),
    ("gs://b/**", "gcs://b/a"),
    ("https://*.partner.com/**", "https://API.Partner.com./up?load=1"),
    ("sql://warehouse/public.*", "sql://warehouse/public.customers"),
    ("s3://b/caf\u00e9/*", "s3://b/cafe\u0301/x"),
    ("*://b/**", "gs://b/a"),
    ("**", "anything://at/all"),
]
NOT_COVERED = [
    ("s3://partner-*/**", "s3://partners/a"),
    ("s3://partner-*/**", "s3://x-partner-x/a"),
    ("s3://partner-*/**", "https://partner-x/a"),
    ("s3://partner-*/**", "s3://other/partner-x/a"),
    ("s3://acct@partner-x/**", "s3://partner-x/a"),
    ("s3://acct@partner-x/**", "s3://evil@partner-x/a"),
    ("s3://b/*", "s3://b/a/b"),
    ("s3://b/*", "s3://b"),
    ("s3://b/a", "s3://b/a/b"),
    ("s3://b/a", "s3://b/A"),
    ("s3://b/a.c", "s3://b/abc"),
    ("file:///*/outbox/**", "file:///home/me/outbox/x"),
    ("file:///*/outbox/**", "file:///outbox/x"),
    ("https://*.partner.com/**", "https://evil.com/x.partner.com/"),
]
ATTACKS = {
    "parent folder": "s3://partner-x/../other/a",
    "parent folder at the end": "s3://partner-x/a/..",
    "this folder": "s3://partner-x/./a",
    "encoded parent": "s3://partner-x/%2e%2e/other",
    "half-encoded parent": "s3://partner-x/.%2E/other",
    "twice encoded parent": "s3://partner-x/%252e%252e/other",
    "encoded four times": "s3://partner-x/%2525252e%2525252e/other",
    "encoded slash to a parent": "s3://partner-x/a%2f..%2fother",
    "empty segment": "s3://partner-x//a",
    "many slashes": "file:////srv//outbox/x",
    "backslash": "s3://partner-x\\..\\other/a",
    "encoded backslash": "s3://partner-x/%5c..%5cother",
    "null": "s3://partner-x/a\x00.csv",
    "encoded null": "s3://partner-x/a%00.csv",
    "line feed": "s3://partner-x/a\n",
    "right-to-left override": "s3://partner-x/\u202evsc.a",
    "space in front": " s3://partner-x/a",
    "query before the path": "https://evil.com?.partner.com/a",
    "fragment before the path": "https://evil.com#.partner.com/a",
    "encoded authority": "https://evil.com%2f.partner.com/a",
    "encoded at-sign": "https://partner.com%40evil.com/a",
    "password": "s3://key:secret@partner-x/a",
    "chained protocol": "simplecache::s3://partner-x/a",
    "host of a file": "file://evil/srv/outbox/x",
    "no scheme": "partner-x/a",
    "one slash": "file:/srv/outbox/x",
    "no authority": "s3:///a",
    "nothing": "",
    "too long": "s3://partner-x/" + "a" * 5000,
}
BAD_GLOBS = [
    "s3://b/a?",
    "s3://b/[ab]",
    "s3://{a,b}/x",
    "s3://b/a**",
    "b/*",
    "s3://b/../x",
    "s3://b//x",
    "*",
    "",
    "s3://b/%41",
]

FILE = parse_policy_file(
    """
version: 1
groups: {g: {users: [alice]}}
policies:
  - {name: strict, match: {action: [export], destination: ["s3://partner-*/**"]}, require: [{group: g}]}
  - {name: nightly, match: {action: [export, write], dag_id: ["nightly_*"]}, require: [{group: g}]}
  - {name: from-lake, match: {action: ["*"], source: ["s3://lake/**"]}, require: [{group: g}]}
  - {name: exports, match: {action: [export]}, require: [{group: g}]}
""",
    name="policy.yaml",
)


@pytest.mark.parametrize(("glob", "uri"), COVERED)
def test_a_glob_covers(glob: str, uri: str) -> None:
    check_glob(glob)
    assert covers([glob], uri)


@pytest.mark.parametrize(("glob", "uri"), NOT_COVERED)
def test_a_glob_does_not_cover(glob: str, uri: str) -> None:
    check_glob(glob)
    assert not covers([glob], uri)


@pytest.mark.parametrize("uri", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_place_that_can_be_read_in_two_ways_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRequestError):
        places_of(uri)


@pytest.mark.parametrize("uri", ATTACKS.values(), ids=ATTACKS.keys())
def test_no_policy_covers_such_a_place_not_even_one_without_globs(uri: str) -> None:
    for action in (Action(kind="export", source=uri), Action(kind="export", destination=uri)):
        for policy_file in (FILE, FILE.model_copy(update={"policies": FILE.policies[-1:]})):
            with pytest.raises(InvalidRequestError):
                policy_file.match(action, dag_id=None)


def test_an_encoded_place_neither_gains_nor_loses_a_match() -> None:
    with pytest.raises(InvalidRequestError, match="two ways"):
        covers(["s3://b/out*/**"], "s3://b/%6futbox/a")
    assert covers(["s3://b/out*/**", "s3://b/**"], "s3://b/%6futbox/a")


def test_a_refusal_shows_no_password_and_no_control_character() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        places_of("s3://key:secret@b/a")
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidRequestError) as caught:
        places_of("s3://b/\u202ea")
    assert "\u202e" not in str(caught.value)


@pytest.mark.parametrize("glob", BAD_GLOBS)
def test_a_glob_that_promises_more_than_it_does_is_refused(glob: str) -> None:
    with pytest.raises(ValueError, match=r"holds|has|must"):
        check_glob(glob)


def test_a_glob_full_of_stars_costs_no_time() -> None:
    begin = time.perf_counter()
    assert not covers(["s3://b/" + "*a" * 100 + "b"], "s3://b/" + "a" * 3000)
    assert not covers(["s3://b/" + "**/a/" * 100 + "b"], "s3://b" + "/a" * 1500)
    assert time.perf_counter() - begin < 5


segments = st.text(alphabet="ab.-", min_size=1, max_size=4).filter(lambda part: part not in (".", ".."))


@given(st.lists(segments, min_size=1, max_size=5), st.data())
def test_stars_in_place_of_any_part_still_cover(parts: list[str], data: st.DataObject) -> None:
    uri = "s3://b/" + "/".join(parts)
    at = data.draw(st.integers(0, len(parts) - 1))
    assert covers(["s3://b/" + "/".join([*parts[:at], "*", *parts[at + 1 :]])], uri)
    assert covers(["s3://b/" + "/".join([*parts[:at], "**"])], uri)
    assert covers([uri], uri)


@given(st.text(max_size=60))
def test_no_place_does_worse_than_being_refused(uri: str) -> None:
    with suppress(InvalidRequestError):
        covers(["s3://b/**"], uri)


def test_names_of_dags_are_covered_whole() -> None:
    assert covers_name("nightly_*", "nightly_export")
    assert not covers_name("nightly_*", "my_nightly_export")
    assert not covers_name("nightly", "nightly2")


MATCHES = [
    (Action(kind="export", destination="s3://partner-x/a"), "nightly_x", "strict"),
    (Action(kind="export", destination="s3://other/a"), "nightly_x", "nightly"),
    (Action(kind="write", destination="s3://partner-x/a"), "nightly_x", "nightly"),
    (Action(kind="delete", source="s3://lake/a"), None, "from-lake"),
    (Action(kind="export"), None, "exports"),
    (Action(kind="export"), "my_nightly_x", "exports"),
]


@pytest.mark.parametrize(("action", "dag_id", "name"), MATCHES)
def test_the_first_policy_that_covers_an_action_applies(
    action: Action, dag_id: str | None, name: str
) -> None:
    assert FILE.match(action, dag_id=dag_id).name == name


def test_an_action_without_a_policy_is_refused_and_says_what_was_tried() -> None:
    with pytest.raises(NoPolicyError) as caught:
        FILE.match(Action(kind="write", destination="s3://other/a"), dag_id=None)
    for word in ("write", "s3://other/a", "strict, nightly, from-lake, exports"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "kind", ["Export", "EXPORT", "export ", "", "*", "export\n", "exp-ort", "é", "a" * 64]
)
def test_another_spelling_of_a_kind_is_no_way_around_a_policy(kind: str) -> None:
    with pytest.raises(InvalidRequestError, match="kind"):
        FILE.match(Action(kind=kind), dag_id=None)


def test_a_policy_named_by_a_dag_is_an_assertion_only() -> None:
    policy = FILE.policies[0]
    check_asserted(policy, None)
    check_asserted(policy, "strict")
    for asserted in ("exports", "Strict", ""):
        with pytest.raises(NoPolicyError, match="strict"):
            check_asserted(policy, asserted)
