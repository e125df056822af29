from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest

from airflow_approvals.core.delivery import IdentityLink, LinkCode
from airflow_approvals.core.errors import ApprovalsError, InvalidRequestError, NotAllowedError
from airflow_approvals.core.model import Person
from airflow_approvals.store.identities import SqlIdentities
from airflow_approvals.store.sql import SqlStore
from tests.store.samples import NOON

ALICE, BOB = Person("alice"), Person("bob")
ACCOUNT = ("slack", "T1", "U1")


@pytest.fixture
def identities(store: SqlStore) -> SqlIdentities:
    return SqlIdentities(store.engine)


def tell(identities: SqlIdentities, code: str = "ABCDE-FGHJK", user: str = "U1") -> None:
    told = LinkCode(provider="slack", team_id="T1", user_id=user, expires_at=NOON + timedelta(minutes=10))
    identities.save_code(code, told)


def kinds(store: SqlStore) -> list[tuple[str, str]]:
    bodies = [json.loads(entry.body) for entry in store.entries_after(-1, limit=100)]
    return [(body["kind"], body["actor"]) for body in bodies]


def test_a_code_links_one_account_once_and_the_ledger_tells_so(
    store: SqlStore, identities: SqlIdentities
) -> None:
    assert identities.find_person(*ACCOUNT) is None
    tell(identities)
    assert identities.find_code("abcde fghjk", now=NOON).user_id == "U1"
    made = identities.link("abcdefghjk", ALICE, now=NOON)
    assert made == IdentityLink(provider="slack", team_id="T1", user_id="U1", person=ALICE, linked_at=NOON)
    assert identities.find_person(*ACCOUNT) == ALICE
    assert list(identities.links_of(ALICE)) == [made]
    with pytest.raises(InvalidRequestError, match="was used"):
        identities.link("ABCDE-FGHJK", BOB, now=NOON)
    assert kinds(store) == [("identity.linked", "alice")]


def test_an_account_that_is_told_many_codes_at_once_has_one_of_them(identities: SqlIdentities) -> None:
    codes = [f"ABCDE-FGHJ{letter}" for letter in "KLMNPQRS"]
    with ThreadPoolExecutor(len(codes)) as pool:
        list(pool.map(partial(tell, identities), codes))

    def is_known(code: str) -> bool:
        with suppress(InvalidRequestError):
            return identities.find_code(code, now=NOON).user_id == "U1"
        return False

    assert [is_known(code) for code in codes].count(True) == 1


def test_the_same_user_id_of_another_workspace_is_somebody_else(identities: SqlIdentities) -> None:
    tell(identities)
    identities.link("ABCDE-FGHJK", ALICE, now=NOON)
    assert identities.find_person("slack", "T2", "U1") is None
    assert identities.find_person("teams", "T1", "U1") is None


@pytest.mark.parametrize("code", ["", "ABCDE-FGHJL", "0", "x" * 5000])
def test_a_wrong_code_links_nothing(identities: SqlIdentities, code: str) -> None:
    tell(identities)
    with pytest.raises(InvalidRequestError, match="not known"):
        identities.link(code, ALICE, now=NOON)


def test_an_old_code_links_nothing(identities: SqlIdentities) -> None:
    tell(identities)
    with pytest.raises(InvalidRequestError, match="too old"):
        identities.link("ABCDE-FGHJK", ALICE, now=NOON + timedelta(minutes=10))


def test_a_new_code_replaces_the_one_before(identities: SqlIdentities) -> None:
    tell(identities)
    tell(identities, "MNPQR-STUVW")
    with pytest.raises(InvalidRequestError):
        identities.link("ABCDE-FGHJK", ALICE, now=NOON)
    identities.link("MNPQR-STUVW", ALICE, now=NOON)


def test_an_account_of_another_login_stays_theirs(store: SqlStore, identities: SqlIdentities) -> None:
    tell(identities)
    identities.link("ABCDE-FGHJK", ALICE, now=NOON)
    tell(identities)
    with pytest.raises(NotAllowedError, match="already linked to another login"):
        identities.link("ABCDE-FGHJK", BOB, now=NOON)
    assert identities.find_person(*ACCOUNT) == ALICE
    assert kinds(store) == [("identity.linked", "alice")]


def test_a_link_is_ended_by_its_person_or_an_admin(store: SqlStore, identities: SqlIdentities) -> None:
    tell(identities)
    identities.link("ABCDE-FGHJK", ALICE, now=NOON)
    with pytest.raises(InvalidRequestError, match="no such link of yours"):
        identities.unlink(*ACCOUNT, of=BOB, actor=BOB, now=NOON)
    identities.unlink(*ACCOUNT, of=None, actor=Person("root"), now=NOON)
    assert identities.find_person(*ACCOUNT) is None
    with pytest.raises(InvalidRequestError):
        identities.unlink(*ACCOUNT, of=ALICE, actor=ALICE, now=NOON)
    assert kinds(store) == [("identity.linked", "alice"), ("identity.unlinked", "root")]


def test_one_code_used_by_two_at_once_links_one(store: SqlStore) -> None:
    identities = SqlIdentities(store.engine)
    tell(identities)

    def use(person: Person) -> bool:
        try:
            SqlIdentities(store.engine).link("ABCDE-FGHJK", person, now=NOON)
        except ApprovalsError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        used = list(pool.map(use, [Person(f"p{number}") for number in range(4)]))
    assert used.count(True) == 1
