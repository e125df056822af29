"""Signed JSON: DSSE v1.0 envelopes with exactly one signature, and JSON read without ambiguity.

securesystemslib has an envelope of its own, which counts characters where DSSE counts bytes, and empties the
dict that it reads (1.6.0): a payload type that is not ASCII would not verify elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from airflow_approvals.core.canonical import without_repeats
from airflow_approvals.core.errors import ReceiptInvalidError, VerificationError
from airflow_approvals.core.signature import PublicKeys, Signer


def sign_envelope(payload: bytes, payload_type: str, signer: Signer) -> dict[str, Any]:
    """Return the DSSE envelope of `payload` as JSON."""
    return {
        "payload": _encode(payload),
        "payloadType": payload_type,
        "signatures": [
            {"keyid": signer.keyid, "sig": _encode(signer.sign(_signed_bytes(payload_type, payload)))}
        ],
    }


def verify_envelope(envelope: object, payload_type: str, keys: PublicKeys) -> tuple[bytes, str]:
    """Return the payload and the id of the key that signed it; raise `ReceiptInvalidError` otherwise."""
    match envelope:
        case {
            "payload": str(payload),
            "payloadType": str(found_type),
            "signatures": [{"keyid": str(keyid), "sig": str(signature), **signature_extra}],
            **extra,
        } if not extra and not signature_extra:
            pass
        case _:
            raise ReceiptInvalidError(
                "not a DSSE envelope with payload, payloadType and one signature; ask for the receipt again"
            )
    if found_type != payload_type:
        raise ReceiptInvalidError(f"the envelope does not hold {payload_type}; give a receipt")
    if keyid not in keys:
        raise ReceiptInvalidError(
            f"the receipt is signed by none of the {len(keys)} known keys; "
            "get the public key of the approvals service from its owner"
        )
    body = _decode(payload)
    try:
        keys[keyid].verify(_decode(signature), _signed_bytes(payload_type, body))
    except VerificationError as error:
        raise ReceiptInvalidError(
            f"the receipt was changed after it was signed, or never signed: {error}"
        ) from None
    return body, keyid


def payload_of(envelope: dict[str, Any]) -> bytes:
    """Return the payload of an envelope that we made ourselves; nothing is verified."""
    return _decode(envelope["payload"])


def read_json(text: bytes | str) -> Any:
    """Return the JSON value of `text`; raise `ReceiptInvalidError` for bad JSON, a repeated name, or NaN."""
    try:
        return json.loads(text, object_pairs_hook=without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ReceiptInvalidError("not JSON, or a name is there twice; ask for the receipt again") from None


def _signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding; its lengths count bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _no_constant(_: str) -> None:
    raise ValueError


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if not value or _encode(value) != text:
        raise ReceiptInvalidError("the envelope holds malformed base64; ask for the receipt again")
    return value
