"""What the policy file gates and protects without a word in the DAG: tasks, connections, variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, model_validator

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.gated_rules import KIND, GateRule, check_rule
from airflow_approvals.core.policy_match import covers_name
from airflow_approvals.core.policy_words import KIND as KIND_PATTERN
from airflow_approvals.core.policy_words import Name, NameGlob, UriGlob
from airflow_approvals.core.policy_yaml import Path

_NON_EMPTY = Field(min_length=1)
_Text = Annotated[StrictStr, Field(min_length=1, max_length=2_000)]


class GatedOperator(BaseModel):
    """Tasks that are gated wherever they stand: every key that is here must fit, one of a list is enough.

    `destination` is a template of where the task writes, rendered with `task` when it runs; with `to` only
    tasks that write to one of these places are gated. `connections` and `variables` are lent to the approved
    task, beside the connections that its own arguments name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    policy: Name
    operator: Annotated[StrictStr, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,249}$")] | None = None
    dag_id: Annotated[tuple[NameGlob, ...], _NON_EMPTY] | None = None
    dag_tags: Annotated[tuple[_Text, ...], _NON_EMPTY] | None = None
    task_id: Annotated[tuple[NameGlob, ...], _NON_EMPTY] | None = None
    conn_id: Annotated[tuple[NameGlob, ...], _NON_EMPTY] | None = None
    destination: _Text | None = None
    to: Annotated[tuple[UriGlob, ...], _NON_EMPTY] | None = None
    kind: Annotated[StrictStr, Field(pattern=f"^{KIND_PATTERN.pattern}$")] = KIND
    show: tuple[_Text, ...] = ()
    connections: tuple[_Text, ...] = ()
    variables: tuple[_Text, ...] = ()

    @model_validator(mode="after")
    def _can_be_told(self) -> GatedOperator:
        try:
            check_rule(self.rule(1))
        except PolicyError as error:
            raise ValueError(str(error).partition(": ")[2]) from None
        return self

    def rule(self, number: int) -> GateRule:
        """Return this entry as the dag processor reads it."""
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.model_dump(mode="json", exclude_none=True).items()
        }
        return GateRule(number=number, **given)


class Protected(BaseModel):
    """Connections or variables that only approved tasks may read: all of them, or those of some policies."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: NameGlob
    policies: Annotated[tuple[Name, ...], _NON_EMPTY] | None = None


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


ProtectedNames = tuple[Annotated[Protected, BeforeValidator(_named)], ...]


def find_protection(protected: Iterable[Protected], name: str) -> Protected | None:
    """Return the first entry that covers `name`; None when it is free for all.

    In any case: Airflow finds a connection of the environment by its name in capitals.
    """
    folded = name.lower()
    return next((entry for entry in protected if covers_name(entry.name.lower(), folded)), None)


def gate_rules(gated: Iterable[GatedOperator]) -> tuple[GateRule, ...]:
    """Return the rules of the file, numbered as they stand there."""
    return tuple(entry.rule(number) for number, entry in enumerate(gated, start=1))


def policies_named(file: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield every policy that gated and protected parts of a file name, sound or not, and where."""
    for at, part in enumerate(_parts(file, "gated_operators")):
        if isinstance(part.get("policy"), str):
            yield ("gated_operators", at, "policy"), part["policy"]
    for key in ("protected_connections", "protected_variables"):
        for at, part in enumerate(_parts(file, key)):
            policies = part.get("policies")
            for position, name in enumerate(policies if isinstance(policies, list) else ()):
                if isinstance(name, str):
                    yield (key, at, "policies", position), name


def _parts(file: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = file.get(key)
    return [part if isinstance(part, dict) else {} for part in value] if isinstance(value, list) else []
