"""Whose signature something bears: public keys that verify or raise, and the port of whoever signs.

A key id is always the fingerprint of the key, never what somebody claims it to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from airflow_approvals.core.canonical import sha256_hex
from airflow_approvals.core.errors import ConfigurationError, VerificationError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

_KEY_TYPES = {"ed25519", "ecdsa", "rsa", "ml-dsa"}
_MAX_KEYS = 1000
_NEXT_STEP = "give a PEM public key, or the JSON of `GET /approvals/api/v1/keys`"


class Signer(Protocol):
    """Whoever holds the private key: a file, a KMS, a Vault, an HSM."""

    @property
    def keyid(self) -> str: ...

    def sign(self, payload: bytes, /) -> bytes: ...

    def public_key_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """One public key; made by `public_key_from_json` or `public_keys_in`, which check it."""

    keyid: str
    keytype: str
    scheme: str
    public: str  # hex for Ed25519, PEM for the others
    _key: SSlibKey = field(repr=False, compare=False)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise `VerificationError` unless this key made `signature` over exactly `data`."""
        from securesystemslib.exceptions import UnverifiedSignatureError
        from securesystemslib.exceptions import VerificationError as KeyUnusableError
        from securesystemslib.signer import Signature

        try:
            self._key.verify_signature(Signature(self.keyid, signature.hex()), data)
        except KeyUnusableError as error:  # derives from the other one
            raise VerificationError(
                f"key {self.keyid} cannot verify anything; get the key from its source again"
            ) from error
        except UnverifiedSignatureError:
            raise VerificationError(
                f"the signature is not one of key {self.keyid} over these bytes"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """Return the key as it is published: key id, type, scheme and value, as in The Update Framework."""
        return {"keyid": self.keyid, **_key_dict(self.keytype, self.scheme, self.public)}

    @cached_property
    def note_identity(self) -> bytes:
        """Return the signature type and the key as the signed-note format of C2SP hashes them.

        Ed25519 is type 0x01. For all others it is 0xff, which that format leaves to applications, with
        "airflow-approvals/" and the scheme as identifier, a newline, and the PEM.
        """
        if self.scheme == "ed25519":
            return b"\x01" + bytes.fromhex(self.public)
        return b"\xff" + f"airflow-approvals/{self.scheme}\n{self.public}".encode()


PublicKeys = Mapping[str, PublicKey]
"""Known public keys by key id."""


def public_key_from_json(value: object) -> PublicKey:
    """Return the key that `PublicKey.to_json` wrote; raise `ConfigurationError` for anything else."""
    match value:
        case {"keytype": str(keytype), "scheme": str(scheme), "keyval": {"public": str(public)}, **others}:
            return _public_key(keytype, scheme, public, claimed=others.get("keyid"))
    raise ConfigurationError(f"not a public key: expected keytype, scheme and keyval.public; {_NEXT_STEP}")


def public_key_from_pem(pem: str) -> PublicKey:
    """Return the key of a PEM file (SubjectPublicKeyInfo), with the scheme that is usual for its type."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        key = SSlibKey.from_crypto(load_pem_public_key(pem.encode()))
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"not a PEM public key that can be used; {_NEXT_STEP}") from None
    return _public_key(key.keytype, key.scheme, key.keyval["public"], claimed=None)


def public_keys_from_json(value: object) -> PublicKeys:
    """Return the keys of `{"keys": [...]}`, a list, or one key; raise `ConfigurationError` if none."""
    listed = value.get("keys", value) if isinstance(value, dict) else value
    listed = listed if isinstance(listed, list) else [listed]
    if not 0 < len(listed) <= _MAX_KEYS:
        raise ConfigurationError(f"expected 1 to {_MAX_KEYS} public keys, found {len(listed)}; {_NEXT_STEP}")
    return by_keyid(public_key_from_json(one) for one in listed)


def public_keys_in(text: str) -> PublicKeys:
    """Return the keys of a key file, PEM or JSON; raise `ConfigurationError` if it is neither."""
    if text.lstrip().startswith("-----BEGIN "):
        return by_keyid(public_key_from_pem(pem) for pem in _pem_blocks(text))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"neither PEM nor JSON; {_NEXT_STEP}") from None
    return public_keys_from_json(value)


def by_keyid(keys: Iterable[PublicKey]) -> PublicKeys:
    """Return `keys` as the mapping that every verification takes."""
    return {key.keyid: key for key in keys}


def _public_key(keytype: str, scheme: str, public: str, *, claimed: object) -> PublicKey:
    from securesystemslib.signer import SSlibKey

    # Key types of securesystemslib that fetch things or run programs to verify (sigstore, gpg) stay out.
    if keytype not in _KEY_TYPES:
        raise ConfigurationError(
            f"public key type not supported: expected one of {sorted(_KEY_TYPES)}; {_NEXT_STEP}"
        )
    try:
        keyid = _fingerprint(keytype, scheme, public)
    except UnicodeEncodeError:
        raise ConfigurationError(f"a public key is not valid Unicode; {_NEXT_STEP}") from None
    if claimed not in (None, keyid):
        raise ConfigurationError(
            f"the public key's id is not its fingerprint: expected {keyid}; get the key from its source again"
        )
    try:
        key = SSlibKey.from_dict(keyid, _key_dict(keytype, scheme, public))
        _check_usable(key)
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"public key {keyid} cannot be read as {keytype} / {scheme}; {_NEXT_STEP}"
        ) from None
    return PublicKey(keyid=keyid, keytype=keytype, scheme=scheme, public=public, _key=key)


def _check_usable(key: SSlibKey) -> None:
    """Raise `ValueError` unless type, value and scheme fit together: try the key on a wrong signature."""
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.exceptions import VerificationError as KeyUnusableError
    from securesystemslib.signer import Signature

    try:
        key.verify_signature(Signature(key.keyid, "00" * 64), b"")
    except KeyUnusableError as error:  # derives from the other one
        raise ValueError from error
    except UnverifiedSignatureError:
        return
    raise ValueError


def _fingerprint(keytype: str, scheme: str, public: str) -> str:
    """Return the key id as securesystemslib makes it: SHA-256 of its own canonical JSON, not RFC 8785."""
    from securesystemslib.formats import encode_canonical

    return sha256_hex(str(encode_canonical(_key_dict(keytype, scheme, public))).encode())


def _key_dict(keytype: str, scheme: str, public: str) -> dict[str, Any]:
    return {"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}


def _pem_blocks(text: str) -> list[str]:
    end = "-----END PUBLIC KEY-----"
    return [block.strip() + "\n" + end + "\n" for block in text.split(end)[:-1]] or [text]
