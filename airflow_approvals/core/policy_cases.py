"""Cases for a policy file: an action, its evidence, people's answers, and what must come of them.

The same functions decide here and in the service, so a case that passes is what would happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from airflow_approvals.core import gate, progress
from airflow_approvals.core.break_glass import break_glass
from airflow_approvals.core.errors import ApprovalsError, PolicyError
from airflow_approvals.core.expressions import check_not_denied, expression_variables
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    Column,
    Evidence,
    FileDigest,
    Origin,
    Person,
    Snapshot,
    State,
    Verdict,
    Vote,
    digest_of_action,
)
from airflow_approvals.core.policy import Policy, PolicyFile, digest_of_policy
from airflow_approvals.core.policy_words import User
from airflow_approvals.core.policy_yaml import read_yaml

_MORNING = datetime(2026, 1, 1, 8, tzinfo=UTC)
"""When every case plays: nothing in a decision depends on the date."""
_SHA256 = "0" * 64

Expected = Literal["approved", "denied", "pending", "refused"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CaseAction(_Part):
    """What would happen."""

    kind: StrictStr
    source: StrictStr | None = None
    destination: StrictStr | None = None
    parameters: dict[str, Any] | None = None
    justification: StrictStr = ""


class CaseEvidence(_Part):
    """What is known of the data: counts, column names, and the PII report as policies see it."""

    rows: Annotated[StrictInt, Field(ge=0)] | None = None
    bytes: Annotated[StrictInt, Field(ge=0)] = 0
    files: Annotated[StrictInt, Field(ge=1, le=1000)] = 1
    columns: tuple[StrictStr, ...] = ()
    pii: dict[str, Any] | None = None


class CaseAnswer(_Part):
    """What one person says."""

    by: User
    verdict: Verdict = Verdict.APPROVE
    channel: Channel = Channel.PAGE
    reason: StrictStr = ""


class PolicyCase(_Part):
    """One case: who asks for what, who answers, and what must come of it."""

    name: Annotated[StrictStr, Field(min_length=1, max_length=200)]
    action: CaseAction
    evidence: CaseEvidence = CaseEvidence()
    dag_id: StrictStr | None = None
    requesters: tuple[User, ...] = ()
    answers: tuple[User | CaseAnswer, ...] = ()  # a bare name approves on the page
    break_glass: User | None = None
    expect: Expected
    policy: StrictStr | None = None  # the policy that must cover it
    turned_away: tuple[User, ...] = ()  # whose answer must be refused: exactly these
    because: StrictStr | None = None  # words that the explanation must hold


class CaseFile(_Part):
    """All cases of one policy file."""

    version: Literal[1]
    cases: Annotated[tuple[PolicyCase, ...], Field(min_length=1, max_length=2000)]


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of one case."""

    decision: Expected
    policy: str | None
    turned_away: tuple[str, ...]
    because: str


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """A case, what came of it, and where that is not what was expected; nothing there when it passed."""

    case: PolicyCase
    played: Played
    differences: tuple[str, ...]


def parse_cases(text: str, *, name: str) -> CaseFile:
    """Return the cases that `text` holds; raise one `PolicyError` with all problems and lines."""
    document = read_yaml(text)
    problems = list(document.problems)
    if document.lines:
        try:
            return CaseFile.model_validate(document.value)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False, include_context=False):
                path = tuple(part for part in detail["loc"] if part not in ("CaseAnswer", "function-after"))
                told = ".".join(str(part) for part in path)
                problems.append((document.line_of(path), f"{told}: {detail['msg']}"))  # type: ignore[arg-type]  # a Problem is such a pair
    lines = [f"{name}:{line}: {reason}" for line, reason in sorted(set(problems))]
    raise PolicyError("\n".join(lines) or f"{name}:1: no cases")


def run_cases(policy_file: PolicyFile, cases: Sequence[PolicyCase]) -> tuple[CaseResult, ...]:
    """Play every case, and hold what comes of it against what was expected."""
    return tuple(_held(case, play(policy_file, case)) for case in cases)


def play(policy_file: PolicyFile, case: PolicyCase) -> Played:
    """Return what `policy_file` makes of a case."""
    requesters = tuple(sorted({person_named(name) for name in case.requesters}))
    evidence, action = _evidence(case.evidence), Action(**case.action.model_dump())
    policy: Policy | None = None
    try:
        policy = policy_file.match(action, dag_id=case.dag_id)
        variables = expression_variables(action, evidence, requesters)
        check_not_denied(policy, variables)
        barred = () if policy.self_approval == "allowed" else requesters
        progress.check_can_be_met(policy, policy_file, variables, barred=barred)
    except ApprovalsError as refusal:
        return Played(
            decision="refused", policy=policy.name if policy else None, turned_away=(), because=str(refusal)
        )
    request = _request(case, action, evidence, requesters, policy)
    request, turned_away, refusals = _answered(request, case, policy, policy_file, variables)
    told = [*refusals, request.decided_because]
    if request.state is State.PENDING:
        told.append(
            progress.progress_of(policy, policy_file, request.votes, variables, barred=barred).missing
        )
    decisions: dict[State, Expected] = {State.APPROVED: "approved", State.DENIED: "denied"}
    return Played(
        decision=decisions.get(request.state, "pending"),
        policy=policy.name,
        turned_away=turned_away,
        because="; ".join(each for each in told if each),
    )


def _answered(
    request: ApprovalRequest,
    case: PolicyCase,
    policy: Policy,
    policy_file: PolicyFile,
    variables: dict[str, Any],
) -> tuple[ApprovalRequest, tuple[str, ...], list[str]]:
    turned_away, refusals = [], []
    for said in case.answers:
        answer = said if isinstance(said, CaseAnswer) else CaseAnswer(by=said)
        try:
            vote = _vote(request, answer, policy, policy_file)
            request = gate.add_vote(request, vote, policy, policy_file, variables)
        except ApprovalsError as refusal:
            turned_away.append(answer.by)
            refusals.append(str(refusal))
    if case.break_glass is not None:
        person = person_named(case.break_glass)
        try:
            request = break_glass(
                request, person, policy, policy_file,
                reason="a case", revision=1, channel=Channel.PAGE, now=_MORNING,
            )  # fmt: skip
        except ApprovalsError as refusal:
            turned_away.append(person)
            refusals.append(str(refusal))
    return request, tuple(turned_away), refusals


def _vote(request: ApprovalRequest, answer: CaseAnswer, policy: Policy, policy_file: PolicyFile) -> Vote:
    voter = person_named(answer.by)
    groups = gate.check_may_vote(
        request,
        voter,
        policy,
        policy_file,
        verdict=answer.verdict,
        channel=answer.channel,
        revision=1,
        reason=answer.reason,
        now=_MORNING,
    )
    return Vote(
        voter=voter,
        verdict=answer.verdict,
        reason=answer.reason,
        channel=answer.channel,
        cast_at=_MORNING,
        revision=1,
        shown_digest=request.action_digest,
        groups=groups,
    )


def _evidence(told: CaseEvidence) -> Evidence:
    if told.rows is None:
        return Evidence(pii=told.pii)
    columns = tuple(Column(name=name, type="string") for name in told.columns)
    files = tuple(FileDigest(name=f"part-{n}", sha256=_SHA256, size=0) for n in range(told.files))
    snapshot = Snapshot(
        uri="file:///case",
        format="parquet",
        sha256=_SHA256,
        size=told.bytes,
        rows=told.rows,
        columns=columns,
        schema_sha256=_SHA256,
        files=files,
    )
    # A report counts for the data that it names; in a case that is the case's own.
    pii = None if told.pii is None else {"dataset_sha256": _SHA256, **told.pii}
    return Evidence(datasets=(snapshot,), pii=pii)


def _request(
    case: PolicyCase, action: Action, evidence: Evidence, requesters: tuple[Person, ...], policy: Policy
) -> ApprovalRequest:
    origin = case.dag_id and Origin(
        ti_id="case",
        dag_id=case.dag_id,
        run_id="case",
        task_id="case",
        map_index=-1,
        try_number=1,
        run_type="manual",
        state="running",
        triggering_user=next(iter(requesters), None),
    )
    return ApprovalRequest(
        id="case",
        revision=1,
        state=State.PENDING,
        action=action,
        evidence=evidence,
        action_digest=digest_of_action(action, evidence),
        gate="",
        opened_by="case",
        requesters=requesters,
        origin=origin or None,
        policy=policy.name,
        policy_digest=digest_of_policy(policy),
        opened_at=_MORNING,
        expires_at=_MORNING + timedelta(seconds=1),
    )


def _held(case: PolicyCase, played: Played) -> CaseResult:
    differences = []
    if played.decision != case.expect:
        differences.append(f"expected {case.expect}, found {played.decision}: {played.because}")
    if case.policy is not None and played.policy != case.policy:
        differences.append(f"expected policy {case.policy}, found {played.policy or 'none'}")
    if set(played.turned_away) != set(case.turned_away):
        expected = ", ".join(sorted(case.turned_away)) or "nobody"
        found = ", ".join(sorted(played.turned_away)) or "nobody"
        differences.append(f"expected {expected} to be turned away, found {found}: {played.because}")
    if case.because is not None and case.because not in played.because:
        differences.append(f"expected {case.because!r} in the explanation, found {played.because!r}")
    return CaseResult(case=case, played=played, differences=tuple(differences))
