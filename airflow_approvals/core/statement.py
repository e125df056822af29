"""The exact JSON of receipts and bundles: every field is there, of its type, and none else.

Strict on purpose: a verifier that skips what it does not know can be shown something that it never checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_approvals.core.model import Channel, GrantKind, Verdict

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://airflow-approvals.github.io/receipt/v1"
BUNDLE_TYPE = "application/vnd.airflow-approvals.receipt-bundle.v1+json"

Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    """JSON of which every field is expected, and none else."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StatedDigest(_Strict):
    """SHA-256 alone: others could say something else."""

    sha256: Sha256


class StatedSubject(_Strict):
    """An in-toto subject."""

    name: Name
    digest: StatedDigest


class StatedAction(_Strict):
    """`model.Action` with every field there."""

    kind: Name
    source: str | None
    destination: str | None
    parameters: dict[str, Any] | None
    justification: str


class StatedOrigin(_Strict):
    """`receipt.ReceiptOrigin`."""

    dag_id: Name
    run_id: Name
    task_id: Name
    map_index: int


class StatedPolicy(_Strict):
    """The policy that applied."""

    name: Name
    digest: Name


class StatedVote(_Strict):
    """`receipt.ReceiptVote`."""

    voter: Name
    verdict: Annotated[Verdict, Field(strict=False)]  # from its JSON string
    channel: Annotated[Channel, Field(strict=False)]
    cast_at: str
    groups: list[str]
    shown_digest: Sha256
    self_approval: bool


class StatedGrant(_Strict):
    """`model.Grant`: what approved in place of votes."""

    kind: Annotated[GrantKind, Field(strict=False)]
    by: Annotated[list[Name], Field(min_length=1)]
    reason: str
    standing_id: Name | None
    standing_receipt_sha256: Sha256 | None


class StatedStanding(_Strict):
    """`model.StandingTerms`: what the approval answers for later."""

    approved_id: Name
    days: int = Field(ge=1)
    dag_id: Name
    task_id: Name
    gate: str
    source: str | None
    destination: str | None


class StatedProof(_Strict):
    """`pii_reports.PiiProof`: what was known about personal data in what was approved."""

    dataset_sha256: Sha256
    verified: bool
    residual: int | None
    plan_digest: Sha256 | None
    report_sha256: Sha256


class StatedPredicate(_Strict):
    """The facts of the decision."""

    request_id: Name
    revision: int
    action: StatedAction
    action_digest: Sha256
    requesters: list[str]
    origin: StatedOrigin | None
    gate: str
    policy: StatedPolicy
    votes: list[StatedVote]
    decided_at: str
    not_after: str
    # Written only where there is one: most receipts rest on votes, and are for one run.
    grant: StatedGrant | None = None
    standing: StatedStanding | None = None
    pii: StatedProof | None = None


class Statement(_Strict):
    """An in-toto statement."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[StatedSubject] = Field(min_length=1)
    predicate_type: Literal["https://airflow-approvals.github.io/receipt/v1"] = Field(alias="predicateType")
    predicate: StatedPredicate


class StatedPlace(_Strict):
    """The ledger part of a bundle."""

    index: int = Field(ge=0)
    entry: str
    inclusion: list[Sha256] = Field(max_length=64)
    checkpoint: str


class Bundle(_Strict):
    """A receipt with its ledger proof."""

    media_type: Literal["application/vnd.airflow-approvals.receipt-bundle.v1+json"] = Field(alias="mediaType")
    envelope: dict[str, Any]
    ledger: StatedPlace
