"""Encryption that can be undone with the key, and tells when a token is not its own (AES-SIV, RFC 5297).

It is deterministic on purpose: equal values give equal tokens, so tables join; who sees the tokens sees
which values are equal, and about how long they are, and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import re

from airflow_approvals.core.errors import VerificationError
from airflow_approvals.pii.masking.keys import KeyRing

PREFIX = "enc1_"
TOKEN = re.compile(r"enc1_[a-z2-7]{28,}")
_PURPOSE = "encrypt"


def encrypt(text: str, keys: KeyRing, domain: str) -> str:
    """Return the token for `text` under the key of `domain`."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    # The leading byte: some versions of the library refuse to encrypt nothing.
    plain = b"\x01" + text.encode("utf-8", "surrogatepass")
    sealed = AESSIV(_key(keys, domain)).encrypt(plain, [domain.encode()])
    # Letters and digits alone: one word, in which no short value can seem to stand.
    return PREFIX + base64.b32encode(sealed).decode().rstrip("=").lower()


def decrypt(token: str, keys: KeyRing, domain: str) -> str:
    """Return what `encrypt` was given; raise `VerificationError` for all but its unchanged token."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    refusal = (
        f"a token is not one that was made under the key of domain {domain!r}, or it was changed; "
        "expected the whole token, with nothing before or behind it, and the key of its time"
    )
    if not TOKEN.fullmatch(token):
        raise VerificationError(refusal)
    packed = token.removeprefix(PREFIX).upper()
    try:
        sealed = base64.b32decode(packed + "=" * (-len(packed) % 8))
        opened = AESSIV(_key(keys, domain)).decrypt(sealed, [domain.encode()])
    except (binascii.Error, ValueError, InvalidTag):
        raise VerificationError(refusal) from None
    text = opened[1:].decode("utf-8", "surrogatepass")
    # Base32 leaves bits of the last sign unused: there is one way to write a token, not several.
    if encrypt(text, keys, domain) != token:
        raise VerificationError(refusal)
    return text


def decrypt_all(text: str, keys: KeyRing, domain: str) -> str:
    """Return a text with every token in it opened; raise `VerificationError` if one cannot be."""
    return TOKEN.sub(lambda token: decrypt(token[0], keys, domain), text)


def _key(keys: KeyRing, domain: str) -> bytes:
    return keys.key_for(domain, _PURPOSE, 64)
