"""Ledger entries: the bytes of one fact, and the check that they are what they claim to be."""

from __future__ import annotations

import re

from airflow_approvals.core.canonical import canonical_json
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import EntryDraft
from airflow_approvals.core.moments import rfc3339

VERSION = 1
KIND = re.compile(r"[a-z][a-z_]*(\.[a-z][a-z_]*)+", re.ASCII)
REQUEST_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
"""Words that JSON writes as they are: an entry can be told from another by its last bytes."""


def entry_body(draft: EntryDraft, index: int) -> bytes:
    """Return the canonical JSON that is hashed, signed and stored as entry `index`."""
    if index < 0 or not KIND.fullmatch(draft.kind):
        raise InvalidRequestError(
            "a ledger entry needs an index of 0 or more and a kind of lower-case words, such as vote.cast"
        )
    if draft.request_id is not None and not REQUEST_ID.fullmatch(draft.request_id):
        raise InvalidRequestError("a ledger entry needs a request id of letters, digits and . : - _, or none")
    return canonical_json(
        {
            "v": VERSION,
            "index": index,
            "kind": draft.kind,
            "request_id": draft.request_id,
            "actor": draft.actor,
            "time": rfc3339(draft.time),
            "data": draft.data,
        }
    )
