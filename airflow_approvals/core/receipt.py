"""Receipts: the signed statement of one decision, which names the bytes that were approved.

An in-toto Statement v1 in a DSSE envelope. With its place in the ledger it makes a bundle that anybody can
verify with the public key alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from airflow_approvals.core.canonical import canonical_json, sha256_hex
from airflow_approvals.core.checkpoint import Checkpoint, verify_checkpoint
from airflow_approvals.core.dsse import payload_of, read_json, sign_envelope, verify_envelope
from airflow_approvals.core.errors import (
    DigestMismatchError,
    InvalidRequestError,
    ReceiptGoneError,
    ReceiptInvalidError,
)
from airflow_approvals.core.merkle import leaf_hash, verify_inclusion
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Grant,
    Person,
    Snapshot,
    StandingTerms,
    Verdict,
    digest_of_action,
    from_json,
    to_json,
)
from airflow_approvals.core.moments import rfc3339, time_of
from airflow_approvals.core.pii_reports import PiiProof, proof_of
from airflow_approvals.core.signature import PublicKeys, Signer
from airflow_approvals.core.statement import (
    BUNDLE_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Bundle,
    StatedVote,
    Statement,
)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
DECISION_KIND = "request.approved"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One approved file, or "action" when no data moves."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ReceiptOrigin:
    """The task that asked."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


@dataclass(frozen=True, kw_only=True)
class ReceiptVote:
    """One vote as the receipt tells it: all but the reason."""

    voter: Person
    verdict: Verdict
    channel: Channel
    cast_at: datetime
    groups: tuple[str, ...]
    shown_digest: str
    self_approval: bool


@dataclass(frozen=True, kw_only=True)
class LedgerPlace:
    """Where the decision stands in the ledger, proven under a signed checkpoint."""

    index: int
    checkpoint: Checkpoint


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a verified receipt says; made by `verify_receipt` and `verify_bundle` only."""

    keyid: str
    payload_sha256: str
    subjects: tuple[Subject, ...]
    request_id: str
    revision: int
    action: Action
    action_digest: str
    requesters: tuple[Person, ...]
    origin: ReceiptOrigin | None
    gate: str
    policy: str
    policy_digest: str
    votes: tuple[ReceiptVote, ...]
    decided_at: datetime
    not_after: datetime
    grant: Grant | None = None  # what approved in place of votes
    standing: StandingTerms | None = None  # set: it answers later runs, and covers no bytes itself
    pii: PiiProof | None = None  # what a report about these very bytes says
    ledger: LedgerPlace | None = None  # None when only the envelope was verified


def statement_of(request: ApprovalRequest, *, decided_at: datetime, not_after: datetime) -> dict[str, Any]:
    """Return the in-toto statement that `request` was approved at `decided_at` for use until `not_after`."""
    if request.action_digest != digest_of_action(request.action, request.evidence, request.standing):
        raise DigestMismatchError(
            f"request {request.id} does not carry the digest of its own action and evidence; not signed"
        )
    if not_after <= decided_at:
        raise InvalidRequestError(f"the receipt of request {request.id} would end before it begins")
    proof = proof_of(request.evidence.pii, request.evidence.datasets)
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in _subjects_of(request)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "request_id": request.id,
            "revision": request.revision,
            "action": to_json(request.action),
            "action_digest": request.action_digest,
            "requesters": list(request.requesters),
            "origin": _origin_json(request),
            "gate": request.gate,
            "policy": {"name": request.policy, "digest": request.policy_digest},
            "votes": _votes_json(request),
            "decided_at": rfc3339(decided_at),
            "not_after": rfc3339(not_after),
            **({"grant": to_json(request.granted)} if request.granted else {}),
            **({"standing": to_json(request.standing)} if request.standing else {}),
            **({"pii": to_json(proof)} if proof else {}),
        },
    }


def sign_receipt(statement: dict[str, Any], signer: Signer) -> dict[str, Any]:
    """Return the DSSE envelope of `statement`, as JSON."""
    return sign_envelope(canonical_json(statement), PAYLOAD_TYPE, signer)


def payload_sha256(envelope: dict[str, Any]) -> str:
    """Return the digest of an envelope's payload, by which the ledger names the receipt."""
    return sha256_hex(payload_of(envelope))


def verify_receipt(envelope: object, keys: PublicKeys) -> Receipt:
    """Return what the receipt says; raise `ReceiptInvalidError` on anything odd."""
    # 1. signed by a known key, 2. every field there and of its type, none more, 3. it agrees with itself
    payload, keyid = verify_envelope(envelope, PAYLOAD_TYPE, keys)
    try:
        statement = Statement.model_validate(read_json(payload))
        receipt = _receipt(statement, keyid, sha256_hex(payload))
    except (ValidationError, InvalidRequestError) as error:
        raise ReceiptInvalidError(
            f"the signed statement is not a receipt of version 1: {_places(error)}; ask for the receipt again"
        ) from None
    _check_agrees(receipt)
    return receipt


def check_covers(receipt: Receipt, *, action_digest: str, now: datetime) -> None:
    """Raise unless `receipt` approves exactly the action and evidence of `action_digest`, at `now`."""
    if receipt.standing is not None:
        raise ReceiptInvalidError(
            f"receipt of request {receipt.request_id}: it states a standing approval, which covers no bytes "
            "itself; every run has a receipt of its own"
        )
    if receipt.action_digest != action_digest:
        raise DigestMismatchError(
            f"receipt of request {receipt.request_id}: expected digest {receipt.action_digest}, "
            f"found {action_digest}; what would move has changed since it was approved, ask again"
        )
    if now < receipt.decided_at or now >= receipt.not_after:
        raise ReceiptGoneError(
            f"receipt of request {receipt.request_id}: valid from {rfc3339(receipt.decided_at)} until "
            f"{rfc3339(receipt.not_after)}, now is {rfc3339(now)}; ask for approval again"
        )


def make_bundle(
    envelope: dict[str, Any], *, index: int, entry: bytes, inclusion: tuple[bytes, ...], checkpoint: str
) -> dict[str, Any]:
    """Return receipt and ledger proof as one JSON document; `entry` is the body of the decision's entry."""
    return {
        "mediaType": BUNDLE_TYPE,
        "envelope": envelope,
        "ledger": {
            "index": index,
            "entry": entry.decode(),
            "inclusion": [step.hex() for step in inclusion],
            "checkpoint": checkpoint,
        },
    }


def verify_bundle(bundle: object, keys: PublicKeys) -> Receipt:
    """Return what the receipt says, with its place in the ledger.

    Raises `VerificationError` (`ReceiptInvalidError`, `LedgerTamperedError`) unless the receipt is valid, the
    ledger entry records exactly this receipt's approval, and it is under a checkpoint signed by a known key.
    """
    try:
        read = Bundle.model_validate(bundle)
    except ValidationError as error:
        raise ReceiptInvalidError(
            f"not a receipt bundle: {_places(error)}; ask for the receipt again"
        ) from None
    receipt = verify_receipt(read.envelope, keys)
    place, entry = read.ledger, _utf8(read.ledger.entry)
    checkpoint = verify_checkpoint(place.checkpoint, keys)
    verify_inclusion(
        index=place.index,
        size=checkpoint.size,
        leaf=leaf_hash(entry),
        proof=[bytes.fromhex(step) for step in place.inclusion],
        root=checkpoint.root,
    )
    _check_records(read_json(entry), place.index, receipt)
    return replace(receipt, ledger=LedgerPlace(index=place.index, checkpoint=checkpoint))


def _subjects_of(request: ApprovalRequest) -> tuple[Subject, ...]:
    files = tuple(
        Subject(name=name, sha256=file.sha256)
        for dataset in request.evidence.datasets
        for name, file in zip(_file_uris(dataset), dataset.files, strict=True)
    )
    return files or (Subject(name="action", sha256=request.action_digest),)


def _file_uris(dataset: Snapshot) -> list[str]:
    if len(dataset.files) == 1 and dataset.files[0].sha256 == dataset.sha256:
        return [dataset.uri]
    return [f"{dataset.uri.rstrip('/')}/{file.name}" for file in dataset.files]


def _origin_json(request: ApprovalRequest) -> dict[str, Any] | None:
    if request.origin is None:
        return None
    return {name: getattr(request.origin, name) for name in ("dag_id", "run_id", "task_id", "map_index")}


def _votes_json(request: ApprovalRequest) -> list[dict[str, Any]]:
    return [
        {
            "voter": vote.voter,
            "verdict": vote.verdict.value,
            "channel": vote.channel.value,
            "cast_at": rfc3339(vote.cast_at),
            "groups": list(vote.groups),
            "shown_digest": vote.shown_digest,
            "self_approval": vote.voter in request.requesters,
        }
        for vote in request.votes
    ]


def _receipt(statement: Statement, keyid: str, payload_sha256: str) -> Receipt:
    facts = statement.predicate
    return Receipt(
        keyid=keyid,
        payload_sha256=payload_sha256,
        subjects=tuple(Subject(name=one.name, sha256=one.digest.sha256) for one in statement.subject),
        request_id=facts.request_id,
        revision=facts.revision,
        action=Action(**dict(facts.action)),  # checked field by field already
        action_digest=facts.action_digest,
        requesters=tuple(Person(name) for name in facts.requesters),
        origin=ReceiptOrigin(**dict(facts.origin)) if facts.origin else None,
        gate=facts.gate,
        policy=facts.policy.name,
        policy_digest=facts.policy.digest,
        votes=tuple(_vote(vote, facts.requesters) for vote in facts.votes),
        decided_at=time_of(facts.decided_at),
        not_after=time_of(facts.not_after),
        grant=from_json(Grant, facts.grant.model_dump()) if facts.grant else None,
        standing=from_json(StandingTerms, facts.standing.model_dump()) if facts.standing else None,
        pii=PiiProof(**facts.pii.model_dump()) if facts.pii else None,
    )


def _vote(vote: StatedVote, requesters: list[str]) -> ReceiptVote:
    if vote.self_approval != (vote.voter in requesters):
        raise InvalidRequestError("self_approval does not agree with the requesters")
    return ReceiptVote(
        voter=Person(vote.voter),
        verdict=vote.verdict,
        channel=vote.channel,
        cast_at=time_of(vote.cast_at),
        groups=tuple(vote.groups),
        shown_digest=vote.shown_digest,
        self_approval=vote.self_approval,
    )


def _check_agrees(receipt: Receipt) -> None:
    """Raise unless every approval was for what the receipt names, and nobody is counted twice."""
    voters = [vote.voter for vote in receipt.votes]
    if len(set(voters)) != len(voters):
        raise ReceiptInvalidError("the receipt counts two votes of one person; do not rely on it")
    for vote in receipt.votes:
        if vote.verdict is Verdict.APPROVE and vote.shown_digest != receipt.action_digest:
            raise ReceiptInvalidError(
                "an approval in the receipt was given for something else; do not rely on it"
            )
    if receipt.grant is None and not any(vote.verdict is Verdict.APPROVE for vote in receipt.votes):
        raise ReceiptInvalidError("nobody stands behind the receipt: no vote and no grant; do not rely on it")
    if receipt.not_after <= receipt.decided_at:
        raise ReceiptInvalidError("the receipt ends before it begins; do not rely on it")


def _check_records(entry: object, index: int, receipt: Receipt) -> None:
    match entry:
        case {
            "index": found_index,
            "kind": found_kind,
            "request_id": found_request,
            "data": {"receipt_sha256": found_sha256},
        } if (found_index, found_kind, found_request, found_sha256) == (
            index,
            DECISION_KIND,
            receipt.request_id,
            receipt.payload_sha256,
        ):
            return
    raise ReceiptInvalidError(
        f"ledger entry {index} does not record the approval that this receipt states; "
        "receipt and ledger proof do not belong together"
    )


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ReceiptInvalidError("the ledger entry in the bundle is not valid Unicode") from None


def _places(error: ValidationError | InvalidRequestError) -> str:
    """Return which fields are wrong, without what they hold."""
    if isinstance(error, InvalidRequestError):
        return str(error)
    return ", ".join(".".join(map(str, each["loc"])) for each in error.errors()[:3]) or "wrong type"
