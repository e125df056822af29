"""Checkpoints are signed notes: they round-trip byte for byte, and fail closed with one kind of error."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from airflow_approvals.core.checkpoint import checkpoint_text, sign_checkpoint, verify_checkpoint
from airflow_approvals.core.errors import ConfigurationError, InvalidRequestError, VerificationError
from airflow_approvals.core.merkle import leaf_hash
from airflow_approvals.core.signature import (
    PublicKeys,
    by_keyid,
    public_key_from_json,
    public_key_from_pem,
    public_keys_from_json,
    public_keys_in,
)
from airflow_approvals.keys import KeySigner

NOTE_VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "signed_note.json").read_text())
NOW = datetime(2026, 1, 31, 8, 15, 0, 42, tzinfo=UTC)
ROOT = leaf_hash(b"root")
ORIGIN = "例え.example/承認-ledger"
SIGNERS = {
    "ed25519": KeySigner(CryptoSigner.generate_ed25519()),
    "ecdsa": KeySigner(CryptoSigner.generate_ecdsa()),
    "rsa": KeySigner(CryptoSigner.generate_rsa(size=2048)),
}
BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
ROOT_TEXT = base64.b64encode(ROOT).decode()
SIGNER = SIGNERS["ed25519"]
OTHER = KeySigner(CryptoSigner.generate_ed25519())
KEYS = by_keyid([SIGNER.public_key])


def note(signer: KeySigner = SIGNER, **changes: Any) -> str:
    facts: dict[str, Any] = {"origin": ORIGIN, "size": 1042, "root": ROOT, "time": NOW}
    return sign_checkpoint(**facts | changes, signer=signer)


def resigned(text: str, *, name: str = ORIGIN) -> str:
    """Sign any text properly, as an owner of the key could."""
    line = note(origin=name).splitlines()[-1]
    key_hash = base64.b64decode(line.split(" ")[2])[:4]
    signature = base64.b64encode(key_hash + SIGNER.sign(text.encode())).decode()
    return f"{text}\n— {name} {signature}\n"


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS.keys())
def test_a_checkpoint_round_trips_byte_for_byte(signer: KeySigner) -> None:
    signed = note(signer)
    found = verify_checkpoint(signed, by_keyid([OTHER.public_key, signer.public_key]), origin=ORIGIN)
    assert (found.origin, found.size, found.root, found.time) == (ORIGIN, 1042, ROOT, NOW)
    assert (found.keyid, found.note) == (signer.keyid, signed)
    again = checkpoint_text(origin=found.origin, size=found.size, root=found.root, time=found.time)
    assert signed.startswith(again + "\n— ")


def test_a_checkpoint_may_leave_out_the_time() -> None:
    assert verify_checkpoint(note(time=None), KEYS).time is None


def test_a_published_signed_note_verifies() -> None:
    raw = base64.b64decode(NOTE_VECTOR["key"])
    key = public_key_from_json(
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": raw[1:].hex()}}
    )
    # Refused, once its signature was found good, for not being the key of a ledger named in the first line.
    with pytest.raises(VerificationError, match="none of the 1 known keys"):
        verify_checkpoint(NOTE_VECTOR["note"], by_keyid([key]))
    with pytest.raises(VerificationError, match="not one of key"):
        verify_checkpoint(NOTE_VECTOR["note"].replace("cryptography", "biography"), by_keyid([key]))


def test_signatures_of_unknown_keys_are_skipped() -> None:
    witness = note(OTHER, origin="witness.example/w").splitlines()[-1]
    assert verify_checkpoint(note() + witness + "\n", KEYS).size == 1042


def test_a_witness_alone_does_not_make_a_checkpoint() -> None:
    with pytest.raises(VerificationError, match="none of the 1 known keys"):
        verify_checkpoint(resigned(note().split("\n\n")[0] + "\n", name="witness.example/w"), KEYS)


def loosened(text: str) -> str:
    """Return other base64 text that lenient decoders read as the same bytes."""
    stem = text.rstrip("=")
    other = BASE64[BASE64.index(stem[-1]) + 1]
    changed = stem[:-1] + other + "=" * (len(text) - len(stem))
    tail = text.rpartition(" ")[2], changed.rpartition(" ")[2]
    assert base64.b64decode(tail[0]) == base64.b64decode(tail[1])
    return changed


TAMPERINGS: dict[str, Callable[[str], str]] = {
    "empty": lambda n: "",
    "no signature": lambda n: n.split("\n\n")[0] + "\n\n",
    "no blank line": lambda n: n.replace("\n\n", "\n"),
    "last newline dropped": lambda n: n[:-1],
    "size changed": lambda n: n.replace("1042", "1041"),
    "origin changed": lambda n: n.replace(ORIGIN, "other.example", 1),
    "root changed": lambda n: n.replace(
        base64.b64encode(ROOT).decode(), base64.b64encode(b"x" * 32).decode()
    ),
    "time changed": lambda n: n.replace("2026", "2027"),
    "time dropped": lambda n: n.replace("time 2026-01-31T08:15:00.000042Z\n", ""),
    "line added": lambda n: n.replace("\n\n", "\nextra\n\n"),
    "signature of another checkpoint": lambda n: n.split("\n\n")[0] + "\n\n" + note(size=7).split("\n\n")[1],
    "signed by an unknown key": lambda n: note(OTHER),
    "unknown key's signature under the known name": lambda n: n.split("— ")[0] + note(OTHER).split("\n\n")[1],
    "bad signature beside a good one": lambda n: n + note(size=7).splitlines()[-1] + "\n",
    "base64 broken": lambda n: n[:-3] + "!\n",
    "base64 with bits after the end": lambda n: loosened(n[:-1]) + "\n",
    "root with bits after the end": lambda n: resigned(
        n.split("\n\n")[0].replace(ROOT_TEXT, loosened(ROOT_TEXT)) + "\n"
    ),
    "hyphen for the dash": lambda n: n.replace("— ", "- "),
    "carriage returns": lambda n: n.replace("\n", "\r\n"),
    "a control character": lambda n: n.replace(ORIGIN, ORIGIN + "\x00"),
    "a lone surrogate": lambda n: n.replace(ORIGIN, "\ud800"),
    "endless": lambda n: "x" * 200_000 + n,
    "too many signatures": lambda n: n + "— w AAAAAA==\n" * 101,
    "signed, but fewer lines": lambda n: resigned(f"{ORIGIN}\n1042\n"),
    "signed, but size 01042": lambda n: resigned(n.split("\n\n")[0].replace("1042", "01042") + "\n"),
    "signed, but size in other digits": lambda n: resigned(
        n.split("\n\n")[0].replace("1042", "\u0661\u0660") + "\n"
    ),
    "signed, but negative": lambda n: resigned(n.split("\n\n")[0].replace("1042", "-1") + "\n"),
    "signed, but a short root": lambda n: resigned(f"{ORIGIN}\n1\nAAAA\n"),
    "signed, but no root": lambda n: resigned(f"{ORIGIN}\n1\n???\n"),
    "signed, but no time": lambda n: resigned(n.split("\n\n")[0].replace("08:15", "8:15") + "\n"),
    "signed, but month 13": lambda n: resigned(n.split("\n\n")[0].replace("-01-", "-13-") + "\n"),
    "signed, but two times": lambda n: resigned(n.split("\n\n")[0] + "\ntime 2026-01-31T08:15:00.000000Z\n"),
    "signed, but an origin with a space": lambda n: resigned(
        "a b\n" + n.split("\n\n")[0].split("\n", 1)[1] + "\n"
    ),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_a_changed_checkpoint_is_refused(tamper: Callable[[str], str]) -> None:
    with pytest.raises(VerificationError):
        verify_checkpoint(tamper(note()), KEYS)


@pytest.mark.parametrize("keys", [{}, by_keyid([OTHER.public_key])], ids=["no key", "another key"])
def test_a_checkpoint_needs_a_known_key(keys: PublicKeys) -> None:
    with pytest.raises(VerificationError, match="known keys"):
        verify_checkpoint(note(), keys)


def test_a_checkpoint_of_another_ledger_is_refused() -> None:
    with pytest.raises(VerificationError, match="another ledger"):
        verify_checkpoint(note(), KEYS, origin="other.example")


@given(st.text())
@example("\n\n\n")
@example("a\nb\n\n— a AAAA\n")
def test_any_text_is_refused_with_a_verification_error(text: str) -> None:
    with pytest.raises(VerificationError):
        verify_checkpoint(text, KEYS)


@given(st.integers(0, 10_000), st.characters())
def test_any_changed_character_of_text_or_signature_is_refused(position: int, char: str) -> None:
    signed = note()
    at = position % len(signed)
    changed = signed[:at] + char + signed[at + 1 :]
    if changed != signed:
        with pytest.raises(VerificationError):
            verify_checkpoint(changed, KEYS)


@pytest.mark.parametrize(
    "changes",
    [{"origin": o} for o in ("", "a b", "a+b", "a\nb", "a\u2028b")]
    + [{"size": -1}, {"root": b"short"}, {"time": NOW.replace(tzinfo=None)}],
    ids=str,
)
def test_what_cannot_be_verified_is_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        note(**changes)


@pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS.keys())
def test_a_public_key_is_the_same_from_json_and_from_a_file(signer: KeySigner) -> None:
    published = json.dumps({"keys": [signer.public_key_json()]})
    assert public_keys_in(published) == by_keyid([signer.public_key])
    assert public_keys_from_json(signer.public_key_json()) == by_keyid([signer.public_key])
    assert public_keys_from_json([signer.public_key_json()]) == by_keyid([signer.public_key])


def test_pem_files_may_hold_several_keys() -> None:
    pems = SIGNERS["ecdsa"].public_key.public + "\n" + SIGNERS["rsa"].public_key.public
    assert public_keys_in(pems) == by_keyid([SIGNERS["ecdsa"].public_key, SIGNERS["rsa"].public_key])


GOOD_KEY = SIGNER.public_key_json()
BAD_KEYS: dict[str, object] = {
    "nothing": None,
    "no keys": {"keys": []},
    "a word": "key",
    "no value": {**GOOD_KEY, "keyval": {}},
    "another key's id": {**GOOD_KEY, "keyid": OTHER.keyid},
    "an id that is no string": {**GOOD_KEY, "keyid": 7},
    "unknown type": {**GOOD_KEY, "keytype": "gpg", "keyid": None},
    "keyless": {"keytype": "sigstore-oidc", "scheme": "Fulcio", "keyval": {"public": "x"}},
    "type and scheme apart": {"keytype": "rsa", "scheme": "ed25519", "keyval": GOOD_KEY["keyval"]},
    "not hex": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "zz"}},
    "too short": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00"}},
    "too many": [GOOD_KEY] * 1001,
}


@pytest.mark.parametrize("value", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_public_key_that_cannot_be_relied_on_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError):
        public_keys_from_json(value)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n"]
)
def test_a_file_without_a_public_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        public_keys_in(text)


def test_a_private_key_is_not_taken_for_a_public_one() -> None:
    with pytest.raises(ConfigurationError):
        public_key_from_pem(CryptoSigner.generate_ed25519().private_bytes.decode())
