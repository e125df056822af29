"""The nouns: what is asked, what is known about it, who answered, and what came of it.

All of them are values: frozen, compared by content, turned into JSON and back by `to_json` and `from_json`.
Times are aware datetimes in UTC. None of them ever holds a value from the data: counts, column names,
entity types and digests only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType, TypeVar

from airflow_approvals.core.canonical import digest_of

Person = NewType("Person", str)
"""One human being across all channels; made by `identity.person_named` only."""


class State(StrEnum):
    """Where a request stands. `gate.TRANSITIONS` holds the only moves there are."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"
    LAPSED = "lapsed"
    REDEEMED = "redeemed"
    COMPLETED = "completed"
    FAILED = "failed"


class Verdict(StrEnum):
    """What one person says."""

    APPROVE = "approve"
    DENY = "deny"


class Channel(StrEnum):
    """Where a person spoke."""

    API = "api"
    CLI = "cli"
    PAGE = "page"
    SLACK = "slack"


@dataclass(frozen=True, kw_only=True)
class Action:
    """What would happen: shown word for word, so it holds no secret and no value from the data."""

    kind: str  # export, write, delete, grant, rotate_key, or a custom word
    source: str | None = None  # URI
    destination: str | None = None  # URI
    parameters: dict[str, Any] | None = None  # JSON
    justification: str = ""


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    """One file of a dataset."""

    name: str  # relative to the dataset; the file's own name when the dataset is one file
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column by name and Arrow type."""

    name: str
    type: str
    nullable: bool = True


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A dataset as it was read once from end to end.

    `sha256` is the file's own digest (what `sha256sum` prints) when there is one file, and the digest of the
    canonical JSON of `files` when the dataset is a folder of parts.
    """

    uri: str
    format: str  # parquet, csv, jsonl
    compression: str | None = None  # gzip, bz2, xz, zstd
    sha256: str
    size: int  # bytes, as stored
    rows: int
    columns: tuple[Column, ...]
    schema_sha256: str  # canonical JSON of `columns`
    files: tuple[FileDigest, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known about the data that would move."""

    datasets: tuple[Snapshot, ...] = ()
    pii: dict[str, Any] | None = None  # reports: counts, columns, entity types, `verified`, `residual`
    links: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The task instance behind a request, as Airflow's metadata database tells it, not the worker."""

    ti_id: str  # changes with every try
    dag_id: str
    run_id: str
    task_id: str
    map_index: int  # -1 when not mapped
    try_number: int
    run_type: str  # manual, scheduled, backfill, asset_triggered, ...
    state: str  # of the task instance, when it was read
    triggering_user: str | None = None
    owners: tuple[str, ...] = ()
    cleared_by: tuple[str, ...] = ()  # whoever had tasks of this run done again


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One person's approve or deny, and what was shown when it was given."""

    voter: Person
    verdict: Verdict
    reason: str
    channel: Channel
    cast_at: datetime
    revision: int
    shown_digest: str  # the action digest that the prompt carried
    groups: tuple[str, ...]  # membership at that moment


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an approver wants to know before answering; `answer` is None while it is open."""

    id: int  # 1, 2, ... within the request
    asked_by: Person
    asked_at: datetime
    text: str
    channel: Channel
    answer: str | None = None
    answered_by: str | None = None
    answered_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the write then did."""

    published: bool
    digest: str | None = None  # of what was published, or found instead
    detail: str = ""
    reported_at: datetime


class GrantKind(StrEnum):
    """What may approve a request in place of votes on it."""

    STANDING = "standing"
    BREAK_GLASS = "break_glass"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Why a request was approved without votes of its own."""

    kind: GrantKind
    by: tuple[Person, ...]  # who broke the glass, or whose votes on the standing approval count for this run
    reason: str
    standing_id: str | None = None  # the request whose decision stands
    standing_receipt_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Review:
    """Who has looked at an emergency grant afterwards, and what they say to it."""

    by: Person
    at: datetime
    remark: str


@dataclass(frozen=True, kw_only=True)
class StandingTerms:
    """What a standing approval answers: later runs of one gate with the same action, for some days."""

    approved_id: str  # the request that was approved before, whose evidence later runs are held against
    days: int
    dag_id: str
    task_id: str
    gate: str
    source: str | None = None  # a glob that a later run's source may fit instead of being the same
    destination: str | None = None  # likewise


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One thing that is not as it was when a standing approval was given, in words and counts."""

    watched: str  # as the policy's `void_on` names it, or `policy`
    was: str
    now: str


@dataclass(frozen=True, kw_only=True)
class ApprovalRequest:
    """One action that waits for, or has had, its decision."""

    id: str  # UUID
    revision: int  # grows when what is shown changes, not with votes
    state: State
    action: Action
    evidence: Evidence
    action_digest: str  # `digest_of_action`
    gate: str  # the name of the gate within its task; "" when there is one
    opened_by: str  # "worker" or a person
    requesters: tuple[Person, ...]  # barred from approving; empty when unknown
    origin: Origin | None
    policy: str
    policy_digest: str
    opened_at: datetime
    expires_at: datetime
    reminded_at: datetime | None = None
    escalated_at: datetime | None = None
    escalated_to: str | None = None  # the group
    next_notice_at: datetime | None = None  # when people are told again that it waits
    votes: tuple[Vote, ...] = ()
    questions: tuple[Question, ...] = ()
    decided_at: datetime | None = None
    decided_because: str = ""
    receipt_expires_at: datetime | None = None
    decision_index: int | None = None  # ledger index of the decision
    receipt: dict[str, Any] | None = None  # DSSE envelope
    redeemed_by: str | None = None  # ti_id
    redeemed_in: str | None = None  # the task that ti_id is a try of, as `service.actor_of` names it
    redeemed_at: datetime | None = None
    outcome: Outcome | None = None
    standing: StandingTerms | None = None  # what its approval answers for later; it is never redeemed itself
    granted: Grant | None = None  # approved by something else than votes on it
    review: Review | None = None  # of an emergency grant, by somebody else
    voided: str | None = None  # the standing approval that ended because of this request
    drift: tuple[Drift, ...] = ()  # why


@dataclass(frozen=True, kw_only=True)
class EntryDraft:
    """A fact that is about to be written into the ledger; the store gives it its index."""

    kind: str  # request.opened, vote.cast, request.approved, attempt.refused, ...
    request_id: str | None
    actor: str  # a person, "worker:<dag>/<task>", or "service"
    time: datetime
    data: dict[str, Any]  # JSON


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One immutable fact: `body` is the canonical JSON that was hashed, kept as it was written."""

    index: int
    body: bytes


def digest_of_action(action: Action, evidence: Evidence, standing: StandingTerms | None = None) -> str:
    """Return the digest that binds a request to what would happen with which bytes, and for how long."""
    bound = {"action": to_json(action), "evidence": to_json(evidence)}
    return digest_of(bound if standing is None else {**bound, "standing": to_json(standing)})


def dataset_digest(files: Sequence[FileDigest], *, is_folder: bool) -> str:
    """Return the digest of a dataset: the file's own, or that of the canonical JSON of a folder's files."""
    if not is_folder:
        return files[0].sha256
    return digest_of([to_json(file) for file in sorted(files, key=lambda file: file.name)])


Noun = TypeVar("Noun")


def to_json(noun: Any) -> Any:
    """Return one of the nouns above as JSON-ready dicts, lists and strings (times in ISO 8601, with zone)."""
    return _adapter(type(noun)).dump_python(noun, mode="json")


def from_json(cls: type[Noun], value: Any) -> Noun:
    """Return the noun that `to_json` made `value` from; raise `pydantic.ValidationError` if it is not one."""
    return _adapter(cls).validate_python(value)  # type: ignore[no-any-return]  # TypeAdapter is not generic here


_ADAPTERS: dict[Any, Any] = {}  # a class is not Hashable to mypy, so functools.cache will not do


def _adapter(cls: Any) -> Any:
    if cls not in _ADAPTERS:
        from pydantic import TypeAdapter

        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]
