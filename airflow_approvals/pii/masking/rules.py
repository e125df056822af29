"""What masking does with each column; said for every column, so that nothing passes by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import InvalidRequestError, SchemaMismatchError
from airflow_approvals.core.model import to_json
from airflow_approvals.pii.masking.operators import (
    Operator,
    Pseudonym,
    Replace,
    needs_subject,
)

ANY = "*"  # in `leave_entities`: whatever is found may stay
LEAST_SCORE = 0.35  # below it Presidio's bank account and driver licence patterns match any number


class Treatment(StrEnum):
    """How a column is dealt with."""

    LEAVE = "leave"
    DROP = "drop"
    CELL = "cell"  # the whole value
    TEXT = "text"  # what is found within it
    LEAVES = "leaves"  # what is found in each leaf of JSON text, a struct, a list or a map


@dataclass(frozen=True, kw_only=True)
class LeafRule:
    """A leaf that is masked as a whole, or left alone, whatever is found in it."""

    path: str  # JSON pointer; `*` for any place in a list: /contact/phones/*
    entity_type: str = ""
    operator: Operator | None = None  # None: left alone

    def __post_init__(self) -> None:
        if self.path and not self.path.startswith("/"):
            raise InvalidRequestError(f"leaf {self.path!r}: expected a JSON pointer, such as /contact/email")
        if self.operator and not self.entity_type:
            raise InvalidRequestError(f"leaf {self.path!r}: an operator needs the entity type that it masks")


@dataclass(frozen=True, kw_only=True)
class ColumnRule:
    """One column."""

    column: str
    treatment: Treatment
    entity_type: str = ""  # CELL: what its values are, for verification too
    operator: Operator | None = None  # CELL
    by_entity: Mapping[str, Operator] = field(default_factory=dict)  # TEXT, LEAVES
    otherwise: Operator = field(default_factory=Replace)  # TEXT, LEAVES: types that are not in `by_entity`
    leave_entities: tuple[str, ...] = ()  # types that may stay, in the eyes of verification too
    least_score: float = LEAST_SCORE
    leaves: tuple[LeafRule, ...] = ()  # LEAVES
    becomes: str | None = None  # CELL: "string" where the column's type changes to it

    def __post_init__(self) -> None:
        name = f"column {self.column!r}"
        if self.treatment is Treatment.CELL and not (self.operator and self.entity_type):
            raise InvalidRequestError(f"{name}: masking whole cells needs an operator and an entity type")
        if self.treatment is not Treatment.CELL and (self.operator or self.becomes):
            raise InvalidRequestError(
                f"{name}: operator and becomes are for whole cells; {self.treatment} has by_entity"
            )
        if self.leaves and self.treatment is not Treatment.LEAVES:
            raise InvalidRequestError(f"{name}: {self.treatment} has no leaves; expected treatment: leaves")
        if self.becomes not in (None, "string"):
            raise InvalidRequestError(f"{name}: can become a string, not {self.becomes!r}")
        if not 0 <= self.least_score <= 1:
            raise InvalidRequestError(f"{name}: least_score is {self.least_score}; expected 0 to 1")

    @property
    def operators(self) -> tuple[Operator, ...]:
        """All that may be applied in this column."""
        leaves = tuple(leaf.operator for leaf in self.leaves if leaf.operator)
        if self.treatment is Treatment.CELL:
            return (self.operator,) if self.operator else ()
        if self.treatment in (Treatment.TEXT, Treatment.LEAVES):
            return (*self.by_entity.values(), self.otherwise, *leaves)
        return ()


@dataclass(frozen=True, kw_only=True)
class MaskingRules:
    """A table's rules: one for every column, and whose rows they are."""

    columns: tuple[ColumnRule, ...]
    subject_column: str | None = None  # whose dates move together

    def __post_init__(self) -> None:
        names = [rule.column for rule in self.columns]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InvalidRequestError(f"columns with more than one masking rule: {twice}; expected one each")
        if all(rule.treatment is Treatment.DROP for rule in self.columns):
            raise InvalidRequestError("every column is dropped; expected one at least that is kept")
        if self.subject_column is None:
            moved = [rule.column for rule in self.columns if any(map(needs_subject, rule.operators))]
            if moved:
                raise InvalidRequestError(
                    f"columns {moved} move dates by subject, but no subject_column says whose they are"
                )
        elif self.subject_column not in names:
            raise InvalidRequestError(f"the subject column {self.subject_column!r} has no rule of its own")

    @cached_property
    def by_column(self) -> dict[str, ColumnRule]:
        """The rules by column name; asked for with every cell of wide tables."""
        return {rule.column: rule for rule in self.columns}

    @property
    def every_operator(self) -> tuple[Operator, ...]:
        """All that may be applied in any column."""
        return tuple(operator for rule in self.columns for operator in rule.operators)

    @property
    def entity_types(self) -> frozenset[str]:
        """Every entity type, or prefix of a token, that these rules name."""
        found: set[str] = set()
        for rule in self.columns:
            found |= {rule.entity_type, *rule.by_entity, *(leaf.entity_type for leaf in rule.leaves)}
            found |= {op.prefix or "" for op in rule.operators if isinstance(op, Pseudonym)}
        return frozenset(found - {""})

    @property
    def entity_types_of_values(self) -> frozenset[str]:
        """Every entity type that whole cells and leaves are masked as: texts may hold the same values."""
        leaves = {leaf.entity_type for rule in self.columns for leaf in rule.leaves}
        return frozenset({rule.entity_type for rule in self.columns} | leaves) - {""}

    @property
    def digest(self) -> str:
        """The SHA-256 of the rules as canonical JSON; there is no key in them."""
        return digest_of(to_json(self))

    def check_columns(self, names: list[str]) -> None:
        """Raise `SchemaMismatchError` unless every column has a rule, and every rule a column."""
        ruled = set(self.by_column)
        # By number: in a file without a header, or an object with ids for keys, names are values.
        missing = [number for number, name in enumerate(names, start=1) if name not in ruled]
        unknown = sorted(ruled - set(names))
        if len(set(names)) != len(names):
            raise SchemaMismatchError("two columns have the same name; no rule tells them apart")
        if missing or unknown:
            raise SchemaMismatchError(
                f"columns without a masking rule: numbers {missing}; rules without a column: {unknown}; "
                "expected one rule for every column; plan again, or stage what was planned"
            )


def check_types(named: str, types: Iterable[str], known: frozenset[str]) -> None:
    """Raise `InvalidRequestError` where an operator is for a type that nothing is ever found as."""
    unknown = sorted(set(types) - known)
    if unknown:
        raise InvalidRequestError(
            f"{named}: no recognizer finds {', '.join(unknown)}; expected some of {', '.join(sorted(known))}"
        )
