"""The masking plan: a file that says what is done with every column and why; people read, edit and pin it.

Its digest goes into reports, requests and receipts. It covers what the plan does, not the reasons beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import ConfigurationError, DigestMismatchError, InvalidRequestError
from airflow_approvals.pii.masking.operators import Operator, Replace
from airflow_approvals.pii.masking.rules import LEAST_SCORE, ColumnRule, LeafRule, MaskingRules, Treatment

AnOperator = Annotated[Operator, Field(discriminator="op")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannedLeaf(_Strict):
    """A leaf of a nested column that is masked as a whole, or left alone when it has no operator."""

    path: str  # JSON pointer, `*` for any place in a list
    entity_type: str = ""
    operator: AnOperator | None = None


class PlannedColumn(_Strict):
    """One column: what is done, and what speaks for it."""

    column: str
    type: str = ""  # Arrow's word, when it was planned
    treatment: Treatment
    entity_type: str = ""
    operator: AnOperator | None = None
    by_entity: Mapping[str, AnOperator] = Field(default_factory=dict)
    otherwise: AnOperator = Field(default_factory=Replace)
    leave_entities: tuple[str, ...] = ()
    least_score: float = LEAST_SCORE
    leaves: tuple[PlannedLeaf, ...] = ()
    becomes: Literal["string"] | None = None
    because: str = ""  # counts and types, never a value


class MaskingPlan(_Strict):
    """A table's plan: every column, in the order of the schema."""

    version: Literal[1] = 1
    columns: tuple[PlannedColumn, ...]
    subject_column: str | None = None
    sampled_rows: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of what this plan does."""
        return digest_of(
            self.model_dump(mode="json", exclude={"sampled_rows": True, "columns": {"__all__": {"because"}}})
        )

    def rules(self) -> MaskingRules:
        """Return the rules to mask by; raise `InvalidRequestError` if they contradict each other."""
        return MaskingRules(columns=tuple(map(_rule, self.columns)), subject_column=self.subject_column)


def write_plan(plan: MaskingPlan, path: Path) -> None:
    """Write the plan as YAML, what has its default left out, the digest as a comment on top."""
    import yaml

    shown = plan.model_dump(mode="json")
    usual = PlannedColumn(column="", treatment=Treatment.LEAVE).model_dump(mode="json")
    shown["columns"] = [
        {key: value for key, value in column.items() if key == "treatment" or value != usual[key]}
        for column in shown["columns"]
    ]
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(f"# sha256 {plan.digest}\n{text}", encoding="utf-8")


def read_plan(path: Path, *, pinned: str | None = None) -> MaskingPlan:
    """Return the plan of a YAML or JSON file.

    Raise `ConfigurationError` naming the place of what is wrong, and `DigestMismatchError` unless the plan
    does what the pinned digest stands for.
    """
    import yaml

    try:
        plan = MaskingPlan.model_validate(_read_yaml(path.read_text(encoding="utf-8")))
        plan.rules()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}: line {line}: {error.problem or 'is no YAML'}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read as YAML or JSON ({type(error).__name__})"
        ) from error
    except InvalidRequestError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: not a masking plan: {_first_of(error)}") from error
    if pinned is not None and plan.digest != pinned:
        raise DigestMismatchError(
            f"{path}: the masking plan has changed since it was pinned; expected sha256 {pinned}, "
            f"found {plan.digest}; review it, and pin the new digest"
        )
    return plan


def _read_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that is there twice: a reader sees the one, and the other would count."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem="a key is here twice; remove one", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # noqa: S506  # a SafeLoader


def _rule(planned: PlannedColumn) -> ColumnRule:
    fields: dict[str, Any] = {
        name: getattr(planned, name)
        for name in (
            "column", "treatment", "entity_type", "operator", "by_entity", "otherwise", "leave_entities",
            "least_score", "becomes",
        )
    }  # fmt: skip
    leaves = (
        LeafRule(path=leaf.path, entity_type=leaf.entity_type, operator=leaf.operator)
        for leaf in planned.leaves
    )
    return ColumnRule(**fields, leaves=tuple(leaves))


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole of it"
    return f"{place}: {first['msg']}"
