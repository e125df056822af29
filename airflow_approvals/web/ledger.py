"""The public face of the ledger: signed heads, proofs, keys, receipts with their place, and the export."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from airflow_approvals.core.checkpoint import sign_checkpoint, verify_checkpoint
from airflow_approvals.core.errors import LedgerTamperedError
from airflow_approvals.core.model import ApprovalRequest
from airflow_approvals.core.receipt import make_bundle
from airflow_approvals.core.signature import by_keyid, public_key_from_json
from airflow_approvals.service import MAX_KEYS, Service


def ensure_checkpoint(service: Service, origin: str, *, now: datetime) -> tuple[int, str]:
    """Return size and note of a signed checkpoint over everything committed; sign it if need be.

    Raises `LedgerTamperedError` when the ledger is not a continuation of the last one signed: a ledger that
    was cut back or rewritten gets no fresh signature to hide behind.
    """
    store = service.store
    last = store.last_checkpoint()
    size = store.ledger_size()
    note = store.find_checkpoint(size)
    if note is None:
        if last is not None:
            _check_continues(service, size, *last)
        root = store.ledger_root(size)
        note = sign_checkpoint(origin=origin, size=size, root=root, time=now, signer=service.signer)
        store.save_checkpoint(size, note)
        # Another process may have been first: everybody hands out the one that was kept.
        note = store.find_checkpoint(size) or note
    return size, note


def bundle_of(
    service: Service, request: ApprovalRequest, origin: str, *, now: datetime
) -> dict[str, Any] | None:
    """Return the receipt with its decision entry, inclusion proof and checkpoint; None if never approved."""
    envelope, index = request.receipt, request.decision_index
    if envelope is None or index is None:
        return None
    last = service.store.last_checkpoint()
    # One that is there will do: a look at a request must not cost a signature each time the ledger grew.
    covering = last if last is not None and last[0] > index else None
    size, note = covering or ensure_checkpoint(service, origin, now=now)
    entry = _entry_at(service, index)
    return make_bundle(
        envelope,
        index=index,
        entry=entry,
        inclusion=service.store.inclusion_proof(index, size),
        checkpoint=note,
    )


def public_keys(service: Service) -> list[dict[str, Any]]:
    """Return every key that has signed here, the one in use first, each once."""
    keys = [service.signer.public_key_json()]
    for entry in service.store.entries_of_kind("key.added", limit=MAX_KEYS):
        key = json.loads(entry.body)["data"]["public_key"]
        if key not in keys:
            keys.append(key)
    return keys


def _check_continues(service: Service, size: int, signed_size: int, note: str) -> None:
    keys = by_keyid(public_key_from_json(key) for key in public_keys(service))
    signed = verify_checkpoint(note, keys)
    if size < signed_size or service.store.ledger_root(signed_size) != signed.root:
        raise LedgerTamperedError(
            f"the ledger has {size} entries and is no continuation of the checkpoint that was signed over "
            f"{signed_size}; nothing is signed: keep the database as it is, export the ledger and verify it"
        )


def _entry_at(service: Service, index: int) -> bytes:
    found = service.store.entries_after(index - 1, limit=1)
    if not found or found[0].index != index:
        raise LedgerTamperedError(
            f"the ledger has no entry {index}, and it was written once; export the ledger and verify it",
            index=index,
        )
    return found[0].body
