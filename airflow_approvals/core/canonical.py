"""The one byte encoding that is hashed and signed: RFC 8785 canonical JSON."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from airflow_approvals.core.errors import InvalidRequestError


class RepeatedNameError(ValueError):
    """A name stands twice in one JSON object: two readers may see two different values."""


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return one JSON object, as an `object_pairs_hook`; raise `RepeatedNameError` for a repeated name."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RepeatedNameError
    return found


def canonical_json(value: Any) -> bytes:
    """Return `value` as RFC 8785 bytes; refuse what JSON cannot say exactly (NaN, integers beyond 2^53)."""
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        # The library's message can repeat the value: name the kind of trouble only.
        raise InvalidRequestError(
            f"cannot be written as canonical JSON (RFC 8785): {type(error).__name__}; "
            "use strings, finite numbers below 2^53, lists and objects"
        ) from None


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, in hex."""
    return sha256_hex(canonical_json(value))
