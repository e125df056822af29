"""One person is one person, however the name is written; and who is barred from approving a run."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.identity import person_logged_in_as, person_named, requesters_of
from airflow_approvals.core.model import Origin

ALICE = person_named("alice")

SPELLINGS_OF_ALICE = {
    "as it is": "alice",
    "upper case": "ALICE",
    "title case": "Alice",
    "spaces around": "  alice ",
    "no-break space after": "alice\u00a0",
    "full-width": "\uff21\uff2c\uff29\uff23\uff25",
    "mathematical bold": "\U0001d41a\U0001d425\U0001d422\U0001d41c\U0001d41e",
    "mathematical bold capital": "\U0001d400lice",
    "script l": "a\u2113ice",
}
REFUSED_NAMES = {
    "empty": "",
    "spaces only": " \t\u00a0",
    "line feed inside": "ali\nce",
    "null": "alice\x00",
    "right-to-left override": "\u202eecila",
    "zero-width space": "ali\u200bce",
    "zero-width joiner": "ali\u200dce",
    "byte order mark": "\ufeffalice",
    "soft hyphen": "ali\u00adce",
    "line separator": "ali\u2028ce",
    "surrogate": "ali\ud800ce",
    "variation selector": "alice\ufe0f",
    "Hangul filler": "alice\u3164",
    "grapheme joiner": "ali\u034fce",
    "empty braille pattern": "alice\u2800",
    "private use": "ali\ue000ce",
    "too long": "a" * 251,
    "too long after folding": "\ufdfa" * 20,
}
visible_names = st.text(min_size=1, max_size=40).filter(
    lambda name: name.isprintable() and name.strip() and len(unicodedata.normalize("NFKC", name)) < 100
)


def origin(
    run_type: str,
    *,
    triggering_user: str | None = None,
    owners: tuple[str, ...] = (),
    cleared_by: tuple[str, ...] = (),
) -> Origin:
    return Origin(
        ti_id="1",
        dag_id="d",
        run_id="r",
        task_id="t",
        map_index=-1,
        try_number=1,
        run_type=run_type,
        state="running",
        triggering_user=triggering_user,
        owners=owners,
        cleared_by=cleared_by,
    )


@pytest.mark.parametrize("name", SPELLINGS_OF_ALICE.values(), ids=SPELLINGS_OF_ALICE.keys())
def test_every_spelling_of_a_name_is_the_same_person(name: str) -> None:
    assert person_named(name) == ALICE


@pytest.mark.parametrize("name", REFUSED_NAMES.values(), ids=REFUSED_NAMES.keys())
def test_a_name_that_cannot_be_seen_whole_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        person_named(name)


def test_the_longest_name_of_airflow_is_accepted() -> None:
    assert person_named("a" * 250) == "a" * 250


def test_sharp_s_and_double_s_are_one_person() -> None:
    assert person_named("strauß") == person_named("STRAUSS")


def test_a_cyrillic_a_is_another_person() -> None:
    assert person_named("\u0430lice") != ALICE


@given(visible_names)
def test_naming_a_person_again_changes_nothing(name: str) -> None:
    try:
        person = person_named(name)
    except InvalidRequestError:
        return  # visible here, unassigned or too long once folded
    assert person_named(person) == person


@given(visible_names)
def test_case_and_normal_form_never_make_a_second_person(name: str) -> None:
    try:
        person = person_named(name)
    except InvalidRequestError:
        return
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert person_named(unicodedata.normalize(form, name)) == person
    assert person_named(name.casefold()) == person
    assert person_named(f" {name} ") == person


@pytest.mark.parametrize("name", ["alice", "Alice", "ALICE", "josé", "jose\u0301", "ann lee", "straße"])
def test_a_plain_login_is_the_person_of_that_name(name: str) -> None:
    assert person_logged_in_as(name) == person_named(name)


LOOKALIKES = {
    spelling: name
    for spelling, name in SPELLINGS_OF_ALICE.items()
    if spelling not in ("as it is", "upper case", "title case")
}


@pytest.mark.parametrize("name", LOOKALIKES.values(), ids=LOOKALIKES.keys())
def test_a_second_account_whose_name_folds_to_anothers_is_nobody(name: str) -> None:
    """Whoever may register a name of their own must not become an approver by it."""
    with pytest.raises(InvalidRequestError, match="reads like another"):
        person_logged_in_as(name)


def test_a_manual_run_is_its_triggering_users() -> None:
    assert requesters_of(origin("manual", triggering_user="Alice", owners=("bob",))) == ("alice",)


@pytest.mark.parametrize("run_type", ["scheduled", "asset_triggered", "backfill", "something_new"])
def test_any_other_run_bars_all_owners_and_whoever_started_it(run_type: str) -> None:
    run = origin(run_type, triggering_user="Carol", owners=("Bob", "airflow", "BOB"))
    assert requesters_of(run) == ("airflow", "bob", "carol")
    assert requesters_of(origin(run_type, owners=("bob",))) == ("bob",)


@pytest.mark.parametrize("user", [None, "", "  ", "unknown", "Unknown"])
def test_a_manual_run_of_an_unknown_user_bars_the_owners(user: str | None) -> None:
    """A scheduled DAG whose task triggers another one must not free its owner to approve that."""
    assert requesters_of(origin("manual", triggering_user=user, owners=("bob",))) == ("bob",)
    assert requesters_of(origin("manual", triggering_user=user)) == ()
    assert requesters_of(origin("scheduled", triggering_user=user)) == ()


@pytest.mark.parametrize("run_type", ["manual", "scheduled"])
def test_whoever_has_a_run_done_again_asks_with_those_who_started_it(run_type: str) -> None:
    run = origin(run_type, triggering_user="engineer", cleared_by=("Alice", "unknown"))
    assert requesters_of(run) == ("alice", "engineer")
    unknown = origin("manual", owners=("bob",), cleared_by=("alice",))
    assert requesters_of(unknown) == ("alice", "bob")
