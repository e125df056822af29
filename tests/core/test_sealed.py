from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_approvals.core.errors import SealBrokenError
from airflow_approvals.core.sealed import MARK, Sealed, is_sealed, open_sealed, read_sealed, seal

KEY, NONCE = bytes(range(32)), bytes(12)
CONTENT = {"password": "the password", "port": 5432}


def a_seal() -> Sealed:
    return seal(CONTENT, kind="connection", name="prod_db", keyid="k1", key=KEY, nonce=NONCE)


def test_what_is_sealed_opens_with_its_key_and_name() -> None:
    text = a_seal().text()
    assert is_sealed(text)
    assert "the password" not in text
    assert open_sealed(read_sealed(text, kind="connection", name="prod_db"), KEY) == CONTENT


Tamper = Callable[[Sealed], Sealed]
TAMPERINGS: dict[str, Tamper] = {
    "another name": lambda one: replace(one, name="dev_db"),
    "another kind": lambda one: replace(one, kind="variable"),
    "another key id": lambda one: replace(one, keyid="k2"),
    "another nonce": lambda one: replace(one, nonce=bytes([1] * 12)),
    "a byte changed": lambda one: replace(
        one, ciphertext=bytes([one.ciphertext[0] ^ 1]) + one.ciphertext[1:]
    ),
    "a byte dropped": lambda one: replace(one, ciphertext=one.ciphertext[:-1]),
    "nothing": lambda one: replace(one, ciphertext=b""),
    "a nonce of another length": lambda one: replace(one, nonce=b"1"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_a_seal_that_was_changed_or_moved_does_not_open(tamper: Tamper) -> None:
    with pytest.raises(SealBrokenError):
        open_sealed(tamper(a_seal()), KEY)


def test_a_seal_does_not_open_with_another_key() -> None:
    with pytest.raises(SealBrokenError):
        open_sealed(a_seal(), bytes(32))


def _with(**changed: object) -> str:
    told = json.loads(a_seal().text())[MARK]
    return json.dumps({MARK: {**told, **changed}})


UNREADABLE = {
    "of another name": _with(name="dev_db"),
    "of another kind": _with(kind="variable"),
    "of a later version": _with(version=2),
    "no base64": _with(nonce="?"),
    "no text": _with(ciphertext=1),
    "no JSON": MARK,
    "no map": json.dumps({MARK: []}),
    "a list": json.dumps([MARK]),
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_only_says_that_it_is_sealed_is_broken(text: str) -> None:
    assert is_sealed(text)
    with pytest.raises(SealBrokenError):
        read_sealed(text, kind="connection", name="prod_db")


def test_the_digest_is_of_what_is_stored() -> None:
    assert a_seal().digest != replace(a_seal(), nonce=bytes([1] * 12)).digest
