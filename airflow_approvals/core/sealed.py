"""Sealed secrets: AES-256-GCM around what a connection or variable holds, bound to its kind and name.

What is sealed is one line of JSON that stands in the place of the secret; any other place, name or byte, and
it does not open.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from airflow_approvals.core.canonical import canonical_json, sha256_hex
from airflow_approvals.core.errors import SealBrokenError
from airflow_approvals.core.lending import Kind

MARK = "airflow_approvals_sealed"
"""The one key of the JSON that stands where a secret was."""
VERSION = 1
KEY_BYTES = 32
NONCE_BYTES = 12


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """One sealed secret, as it is stored."""

    kind: Kind
    name: str
    keyid: str
    nonce: bytes
    ciphertext: bytes  # with GCM's tag at its end

    @property
    def digest(self) -> str:
        """The digest of what is stored, for the ledger: an older one put back is found by it."""
        return sha256_hex(self.text().encode())

    def text(self) -> str:
        """Return the JSON that stands where the secret was."""
        return json.dumps(
            {
                MARK: {
                    "version": VERSION,
                    "kind": self.kind,
                    "name": self.name,
                    "key": self.keyid,
                    "nonce": base64.b64encode(self.nonce).decode(),
                    "ciphertext": base64.b64encode(self.ciphertext).decode(),
                }
            }
        )


def seal(content: dict[str, Any], *, kind: Kind, name: str, keyid: str, key: bytes, nonce: bytes) -> Sealed:
    """Return `content` sealed; the caller gives a nonce that was never used with this key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    bound = _bound(kind, name, keyid)
    ciphertext = AESGCM(key).encrypt(nonce, canonical_json(content), bound)
    return Sealed(kind=kind, name=name, keyid=keyid, nonce=nonce, ciphertext=ciphertext)


def open_sealed(sealed: Sealed, key: bytes) -> dict[str, Any]:
    """Return what was sealed; raise `SealBrokenError` when a byte, the name or the key is another one."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        plain = AESGCM(key).decrypt(
            sealed.nonce, sealed.ciphertext, _bound(sealed.kind, sealed.name, sealed.keyid)
        )
    except (InvalidTag, ValueError):
        raise SealBrokenError(
            f"{sealed.kind} {sealed.name}: its seal does not open: it was changed, or copied from another "
            "name; enter the secret again and seal it"
        ) from None
    content: dict[str, Any] = json.loads(plain)
    return content


def is_sealed(text: str | None) -> bool:
    """Return whether `text` says of itself that it is sealed."""
    return text is not None and MARK in text


def read_sealed(text: str, *, kind: Kind, name: str) -> Sealed:
    """Return the sealed secret that `text` holds for this name; raise `SealBrokenError` if it holds none."""
    try:
        told = json.loads(text)[MARK]
        if (told["version"], told["kind"], told["name"]) != (VERSION, kind, name):
            raise SealBrokenError(
                f"{kind} {name}: it holds the seal of {told['kind']} {told['name']}, version "
                f"{told['version']}; enter the secret again and seal it"
            )
        return Sealed(
            kind=kind,
            name=name,
            keyid=str(told["key"]),
            nonce=base64.b64decode(told["nonce"], validate=True),
            ciphertext=base64.b64decode(told["ciphertext"], validate=True),
        )
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise SealBrokenError(
            f"{kind} {name}: what says that it is sealed cannot be read; enter the secret again and seal it"
        ) from None


def _bound(kind: Kind, name: str, keyid: str) -> bytes:
    return canonical_json({"mark": MARK, "version": VERSION, "kind": kind, "name": name, "key": keyid})
