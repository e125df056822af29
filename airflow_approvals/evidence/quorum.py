"""Whether the votes on record meet the rules on record, by the evaluation that the gate itself uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from airflow_approvals.core.errors import ApprovalsError
from airflow_approvals.core.expressions import expression_variables
from airflow_approvals.core.model import Action, Evidence, Person, Verdict, from_json
from airflow_approvals.core.policy import Policy, Rule
from airflow_approvals.core.progress import VoteOnRecord, progress_on_record
from airflow_approvals.evidence.cases import Answer, Case

_REMEMBERED = 4096  # answers by the same people, who come again and again


class Quorum:
    """What one policy asks for."""

    def __init__(self, policy: Policy) -> None:
        rules = tuple(Rule(group=each.group, approvals=each.approvals) for each in policy.require)
        self._policy = policy
        self._every_rule = policy.model_copy(update={"require": rules})
        self._meet_every_rule = lru_cache(_REMEMBERED)(self._evaluate_every_rule)

    def is_met(self, case: Case, answers: Sequence[Answer]) -> bool:
        """Return whether `answers` meet every rule for what `case` asked for, by different people.

        What cannot be read is not met.
        """
        requesters = tuple(map(Person, case.requesters))
        barred = () if self._policy.self_approval == "allowed" else requesters
        try:
            votes = tuple(
                VoteOnRecord(Person(each.voter), Verdict(each.verdict), each.groups) for each in answers
            )
            # Votes that meet every rule meet those that apply: which do is found out where it matters only.
            if self._meet_every_rule(votes, barred):
                return True
            action = from_json(Action, case.asked.get("action"))
            evidence = from_json(Evidence, case.asked.get("evidence"))
            variables = expression_variables(action, evidence, requesters)
        except (ApprovalsError, ValueError):  # pydantic's is one of these
            return False
        return progress_on_record(self._policy, votes, variables, barred=barred).is_met

    def _evaluate_every_rule(self, votes: tuple[VoteOnRecord, ...], barred: tuple[Person, ...]) -> bool:
        return progress_on_record(self._every_rule, votes, {}, barred=barred).is_met


def quorum_of(rule: Mapping[str, Any] | None) -> Quorum | None:
    """Return what a policy asks for, as the ledger holds it; None where it is not there or cannot be read."""
    try:
        return Quorum(Policy.model_validate(rule))
    except ValidationError:
        return None
