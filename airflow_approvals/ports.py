"""What the outside must provide: a store, the facts about task instances, a signer, the policy in force."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from airflow_approvals.core.model import (
    ApprovalRequest,
    Entry,
    EntryDraft,
    Origin,
    Person,
    StandingTerms,
    State,
)
from airflow_approvals.core.policy import PolicyFile


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """Which requests one person may see: their own, those of these policies, and those of these DAGs."""

    person: Person
    policies: tuple[str, ...]
    dag_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RequestFilter:
    """Which requests to list; every given field narrows."""

    states: tuple[State, ...] = ()
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None  # -1: of a task that is not mapped
    policy: str | None = None
    requester: str | None = None
    redeemed_by: str | None = None  # task instance id
    is_standing: bool | None = None  # whether its approval stands for later runs; None: both
    granted_by: str | None = None  # id of the standing approval that approved it
    voided: str | None = None  # id of the standing approval that it ended
    ids: tuple[str, ...] = ()
    opened_before: datetime | None = None
    search: str | None = None  # words, each of which must stand somewhere in names, addresses or the reason
    visible_to: Visibility | None = None  # None: all of them
    limit: int = 50  # at most 500
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of requests, newest first, and how many there are in all."""

    requests: tuple[ApprovalRequest, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class TaskSlot:
    """The place in a DAG run that a gate belongs to; unlike the task instance id it survives retries."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    gate: str


@dataclass(frozen=True, kw_only=True)
class StoredIdempotencyKey:
    """What an Idempotency-Key was used for."""

    request_id: str
    body_sha256: str


@dataclass(frozen=True, kw_only=True)
class StoredReceipt:
    """The receipt of one approval, and the ledger index of its decision."""

    seq: int  # order of arrival of its request
    index: int
    envelope: dict[str, Any]


class Transaction(Protocol):
    """One all-or-nothing change: what it writes and its ledger entries are committed together."""

    def get_request(self, request_id: str, *, for_update: bool = False) -> ApprovalRequest:
        """Return the request, locked against other transactions if asked; raise `RequestNotFoundError`."""

    def find_latest_request(self, slot: TaskSlot, *, for_update: bool = False) -> ApprovalRequest | None:
        """Return the newest request of this gate in this task, whatever its state.

        With `for_update`, two transactions on one slot run one after the other even when there is no row yet.
        """

    def find_idempotency_key(self, caller: str, key: str) -> StoredIdempotencyKey | None: ...

    def insert_request(self, request: ApprovalRequest) -> None: ...

    def insert_idempotency_key(self, caller: str, key: str, stored: StoredIdempotencyKey) -> None:
        """Keep the key; raise `IdempotencyConflictError` if a concurrent transaction kept it first."""

    def update_request(self, request: ApprovalRequest) -> None: ...

    def find_standing(self, terms: StandingTerms, *, state: State) -> Sequence[ApprovalRequest]:
        """Return, locked, standing requests in `state` for the gate that `terms` names, newest first."""

    def append(self, draft: EntryDraft) -> Entry:
        """Add the fact to the ledger; it gets the next index and its Merkle leaf in this transaction."""

    def find_last_entry(self, kind: str) -> Entry | None:
        """Return the newest entry of `kind`; nobody else appends until this transaction ends."""

    def find_due(self, now: datetime, *, limit: int) -> Sequence[ApprovalRequest]:
        """Return, locked, pending requests past `expires_at` and approved ones past `receipt_expires_at`.

        Rows that another process has locked are left to it.
        """

    def find_unanswered(self, now: datetime, *, limit: int) -> Sequence[ApprovalRequest]:
        """Return, locked in the same way, pending requests whose `next_notice_at` has come."""


class Store(Protocol):
    """Where requests and the ledger live."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """Commit when the block ends, roll back when it raises."""

    def get_request(self, request_id: str) -> ApprovalRequest: ...

    def list_requests(self, wanted: RequestFilter) -> Page: ...

    def pending_ids(self) -> Sequence[str]:
        """Return the ids of all requests that are pending at this moment, in order of arrival."""

    def visible_among(self, ids: Collection[str], viewer: Visibility) -> frozenset[str]:
        """Return those of `ids` that are of requests which `viewer` may see."""

    def entries_after(self, index: int, *, limit: int) -> Sequence[Entry]:
        """Return entries with an index greater than `index` (-1: from the first), in order."""

    def entries_of_kind(self, kind: str, *, limit: int) -> Sequence[Entry]:
        """Return the newest entries of `kind`, newest first."""

    def entries_of_request(self, request_id: str, *, limit: int) -> Sequence[Entry]:
        """Return the newest entries about one request, newest first."""

    def leaves_after(self, index: int, *, limit: int) -> Sequence[tuple[bytes, bytes]]:
        """Return body and stored leaf hash of the entries after `index`, in order."""

    def checkpoints_after(self, size: int, *, limit: int) -> Sequence[tuple[int, str]]:
        """Return size and note of the checkpoints kept for more than `size` entries, in order."""

    def receipts_after(self, seq: int, *, limit: int) -> Sequence[StoredReceipt]:
        """Return the receipts of requests whose order of arrival is beyond `seq` (0: from the first)."""

    def ledger_size(self) -> int: ...

    def ledger_root(self, size: int) -> bytes:
        """Return the RFC 6962 root over the first `size` entries."""

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]: ...

    def consistency_proof(self, old_size: int, new_size: int) -> tuple[bytes, ...]: ...

    def save_checkpoint(self, size: int, note: str) -> None: ...

    def find_checkpoint(self, size: int) -> str | None: ...

    def last_checkpoint(self) -> tuple[int, str] | None: ...


class Origins(Protocol):
    """The facts about task instances, from Airflow's metadata database."""

    def origin_of(self, ti_id: str) -> Origin:
        """Return the task instance behind `ti_id`; raise `TaskInstanceRefusedError` when there is none."""


class Signer(Protocol):
    """A key that signs receipts and checkpoints; it may live in a KMS, a Vault or an HSM."""

    @property
    def keyid(self) -> str: ...

    def sign(self, payload: bytes) -> bytes: ...

    def public_key_json(self) -> dict[str, Any]:
        """Return the public key as securesystemslib writes it, with its keyid."""


class PolicySource(Protocol):
    """The policy file in force; a broken one never replaces a good one."""

    def current(self) -> PolicyFile:
        """Return the newest valid policy file; raise `PolicyError` if there never was one."""

    def problem(self) -> str | None:
        """Return why the file on disk is not the one in force, if so."""


Clock = Callable[[], datetime]
NewId = Callable[[], str]
