"""Whether the votes on record meet the rules on record, by the evaluation that the gate itself uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.core.expressions import expression_variables
from airflow_approvals.core.model import Action, Evidence, Person, Vote, from_json
from airflow_approvals.core.policy import Policy, Rule
from airflow_approvals.core.progress import progress_on_record
from airflow_approvals.evidence.cases import Answer, Case


@dataclass(frozen=True, kw_only=True)
class Quorum:
    """What one policy asks for; made by `quorum_of`."""

    policy: Policy
    always: Policy  # the same, with every rule applying

    def is_met(self, case: Case, answers: Sequence[Answer]) -> bool:
        """Return whether `answers` meet every rule for what `case` asked for, by different people.

        What cannot be read is not met.
        """
        requesters = tuple(map(Person, case.requesters))
        barred = () if self.policy.self_approval == "allowed" else requesters
        try:
            votes = [from_json(Vote, answer.vote) for answer in answers]
            # Votes that meet every rule meet those that apply: which do is found out where it matters only.
            if progress_on_record(self.always, votes, {}, barred=barred).is_met:
                return True
            action = from_json(Action, case.asked.get("action"))
            evidence = from_json(Evidence, case.asked.get("evidence"))
            variables = expression_variables(action, evidence, requesters)
        except (ApprovalsError, ValidationError):
            return False
        return progress_on_record(self.policy, votes, variables, barred=barred).is_met


def quorum_of(rule: Mapping[str, Any] | None) -> Quorum | None:
    """Return what a policy asks for, as the ledger holds it; None where it is not there or cannot be read."""
    try:
        policy = Policy.model_validate(rule)
    except ValidationError:
        return None
    always = tuple(Rule(group=each.group, approvals=each.approvals) for each in policy.require)
    return Quorum(policy=policy, always=policy.model_copy(update={"require": always}))
