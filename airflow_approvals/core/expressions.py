"""The CEL expressions of a policy: what they may speak of, checked at load, and fail-closed at evaluation.

Documented variables (null means "not known", and any comparison with it but `==` and `!=` is an error, which
counts against the request: a failing `deny_if` denies, a failing `when` makes the rule apply):

- `action`: `kind`, `source`, `destination` (URIs or null), `parameters` (map), `justification`.
- `dataset`: summed over all snapshots: `rows`, `bytes`, `files` (numbers), `columns` (list of names);
  null when there is no snapshot. `count`: how many snapshots there are.
- `pii`: `scanned`, `verified` (true only when a report about the very data says so), `residual` (number),
  `entities` (map of type to count), `columns` (list of names); the last three are null when the report does
  not tell.
- `requesters`: list of the persons who ask; empty when unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from airflow_approvals.core.errors import PolicyDeniesError, PolicyError
from airflow_approvals.core.model import Action, Evidence, Person
from airflow_approvals.core.pii_reports import check_report, is_about

MAX_EXPRESSION_LENGTH = 1_000
"""Characters. The CEL parser overflows the stack, and with it the process, on a sum of a million terms."""

MAX_NESTED_COMPREHENSIONS = 2
"""`exists` in `exists` in `exists` over the columns of a wide table would hold up the service."""

FIELDS: Mapping[str, frozenset[str]] = {
    "action": frozenset({"kind", "source", "destination", "parameters", "justification"}),
    "dataset": frozenset({"rows", "bytes", "files", "columns", "count"}),
    "pii": frozenset({"scanned", "verified", "residual", "entities", "columns"}),
    "requesters": frozenset(),
}
FUNCTIONS = frozenset(
    {
        "size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "string",
        "duration", "timestamp", "getFullYear", "getMonth", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
        "getHours", "getMinutes", "getSeconds",
    }
)  # fmt: skip

_COMPREHENSIONS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_WORDS = frozenset({"true", "false", "null", "in"})
_EVALUATION_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
_TOKEN = re.compile(
    r"""
      (?P<string> [rR][bB]?"[^"\n]*" | [rR][bB]?'[^'\n]*'
        | [bB]?"(?:\\.|[^"\\\n])*" | [bB]?'(?:\\.|[^'\\\n])*' )
    | (?P<comment> //[^\n]* )
    | (?P<number> \d[\w.]* )
    | (?P<name> [A-Za-z_]\w* )
    | (?P<mark> \S )
    """,
    re.VERBOSE,
)


class ExpressionError(PolicyError):
    """An expression of the policy cannot be compiled, or gave no true or false."""

    type = "policy-expression"


def check_expression(source: str) -> None:
    """Raise `ExpressionError` unless `source` is CEL that speaks of the documented variables only."""
    if len(source) > MAX_EXPRESSION_LENGTH:
        raise ExpressionError(
            f"the expression has {len(source)} characters, at most {MAX_EXPRESSION_LENGTH} are allowed"
        )
    program = _compiled(source)
    unknown_functions = sorted(
        name for name in program.functions() if re.match(r"[A-Za-z]", name) and name not in FUNCTIONS
    )
    if unknown_functions:
        raise ExpressionError(
            f"unknown function {unknown_functions[0]!r} in {source!r}; "
            f"known are {', '.join(sorted(FUNCTIONS))}"
        )
    bound = _check_names(source)
    unknown = sorted(set(program.variables()) - set(FIELDS) - bound)
    if unknown:
        raise ExpressionError(_unknown_variable(unknown[0], source))


class Denying(Protocol):
    """What is needed of a policy here; the policy itself needs this module to be loaded."""

    @property
    def name(self) -> str: ...

    @property
    def deny_if(self) -> tuple[str, ...]: ...


def check_not_denied(policy: Denying, variables: Mapping[str, Any]) -> None:
    """Raise `PolicyDeniesError` when a `deny_if` of `policy` holds, or cannot be evaluated."""
    denied = list(find_denials(policy, variables))
    if denied:
        told = f"policy {policy.name} denies this action: {'; '.join(denied)}"
        raise PolicyDeniesError(f"{told}{_next_step(policy, variables)}")


def find_denials(policy: Denying, variables: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words every `deny_if` of `policy` that holds, or that cannot be evaluated."""
    for source in policy.deny_if:
        try:
            holds = is_true(source, variables)
        except ExpressionError as error:
            yield f"{error}, which counts as a denial"
        else:
            if holds:
                yield f"{source!r} holds"


def _next_step(policy: Denying, variables: Mapping[str, Any]) -> str:
    """Return what to do where an expression is about personal data, and nobody has looked for any."""
    pii = variables.get("pii")
    is_unseen = isinstance(pii, Mapping) and pii.get("scanned") is False
    if is_unseen and any(re.search(r"\bpii\.", source) for source in policy.deny_if):
        return "; no PII report about this data came along: scan it, or mask it, and give `pii_report`"
    return ""


def is_true(source: str, variables: Mapping[str, Any]) -> bool:
    """Return what `source` says about `variables`; raise `ExpressionError` when that is no true or false."""
    try:
        result = _compiled(source).execute(dict(variables))
    except _EVALUATION_ERRORS as error:
        # The library's message can repeat a value; what is not known, or the kind of trouble, is enough.
        missing = " and ".join(_not_known(source, variables))
        why = f": {missing} is not known" if missing else f" ({type(error).__name__})"
        raise ExpressionError(f"{source!r} could not be evaluated{why}") from None
    if not isinstance(result, bool):
        raise ExpressionError(f"{source!r} gave {type(result).__name__}, expected true or false")
    return result


def _not_known(source: str, variables: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}.{field}"
        for name, fields in FIELDS.items()
        for field in sorted(fields)
        if f"{name}.{field}" in source and variables[name][field] is None
    ]


def expression_variables(action: Action, evidence: Evidence, requesters: Sequence[Person]) -> dict[str, Any]:
    """Return the documented variables for one request; what is not known is null, never zero.

    Raise `ReportMismatchError` for a PII report about other data.
    """
    check_report(evidence.pii, evidence.datasets)
    return {
        "action": {
            "kind": action.kind,
            "source": action.source,
            "destination": action.destination,
            "parameters": action.parameters or {},
            "justification": action.justification,
        },
        "dataset": _dataset_variables(evidence),
        "pii": _pii_variables(evidence),
        "requesters": list(requesters),
    }


def _dataset_variables(evidence: Evidence) -> dict[str, Any]:
    if not evidence.datasets:
        return {"rows": None, "bytes": None, "files": None, "columns": None, "count": 0}
    return {
        "rows": sum(snapshot.rows for snapshot in evidence.datasets),
        "bytes": sum(snapshot.size for snapshot in evidence.datasets),
        "files": sum(len(snapshot.files) for snapshot in evidence.datasets),
        "columns": sorted({column.name for snapshot in evidence.datasets for column in snapshot.columns}),
        "count": len(evidence.datasets),
    }


def _pii_variables(evidence: Evidence) -> dict[str, Any]:
    """Take from a PII report what has the promised shape; anything else is not known."""
    given = evidence.pii or {}
    report: Mapping[str, Any] = given if is_about(given, evidence.datasets) else {}
    residual: Any = report.get("residual")
    entities: Any = report.get("entities")
    columns: Any = report.get("columns")
    scanned = report.get("scanned") is True
    return {
        "scanned": scanned,
        # A proof that masking holds needs a scan to hold against.
        "verified": scanned and report.get("verified") is True,
        "residual": residual if scanned and _is_count(residual) else None,
        "entities": dict(entities) if scanned and _is_counts(entities) else None,
        "columns": list(columns) if scanned and _is_names(columns) else None,
    }


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_counts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_count(v) for k, v in value.items())


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


@lru_cache(maxsize=512)
def _compiled(source: str) -> Any:
    import cel

    try:
        return cel.compile(source)
    except ValueError as error:
        reason = str(error).partition("ERROR: ")[2].splitlines() or ["syntax error"]
        raise ExpressionError(
            f"{source!r} is not a CEL expression: {reason[0].partition(' expecting {')[0]}"
        ) from None


class _Token(NamedTuple):
    kind: str
    text: str


def _tokens_of(source: str) -> list[_Token]:
    return [
        _Token(match.lastgroup or "", match.group())
        for match in _TOKEN.finditer(source)
        if match.lastgroup != "comment"
    ]


def _check_names(source: str) -> set[str]:
    """Raise `ExpressionError` for a name that is not documented; return the names that `source` binds itself.

    The library lists the names bound by `exists(x, ...)` among the variables and knows nothing of fields, so
    scopes are followed here: a misspelt field would otherwise be found out by the first request it denies.
    """
    tokens = _tokens_of(source)
    bound: set[str] = set()
    for position, in_scope in _names_in_scope(tokens):
        name = tokens[position].text
        bound |= in_scope
        if name in in_scope or name in _WORDS:
            continue
        if name not in FIELDS:
            raise ExpressionError(_unknown_variable(name, source))
        _check_field(name, tokens[position + 1 : position + 3], source)
    return bound


def _names_in_scope(tokens: Sequence[_Token]) -> Iterator[tuple[int, frozenset[str]]]:
    """Yield the position of every free-standing name, and the names that are bound around it."""
    scopes: list[str | None] = []
    for position, token in enumerate(tokens):
        if token.text in ("(", ")") and token.kind == "mark":
            if token.text == "(":
                scopes.append(_bound_by(tokens, position))
            elif scopes:
                scopes.pop()
            bound = [name for name in scopes if name is not None]
            if len(bound) > MAX_NESTED_COMPREHENSIONS:
                raise ExpressionError(
                    f"more than {MAX_NESTED_COMPREHENSIONS} inside each other of "
                    f"{', '.join(sorted(_COMPREHENSIONS))}"
                )
        elif (
            token.kind == "name" and _text(tokens, position - 1) != "." and _text(tokens, position + 1) != "("
        ):
            yield position, frozenset(name for name in scopes if name is not None)


def _bound_by(tokens: Sequence[_Token], position: int) -> str | None:
    """Return the name that the comprehension whose bracket opens at `position` binds, if it is one."""
    is_comprehension = (
        _text(tokens, position - 2) == "."
        and _text(tokens, position - 1) in _COMPREHENSIONS
        and _text(tokens, position + 2) == ","
    )
    return _text(tokens, position + 1) if is_comprehension else None


def _check_field(variable: str, following: Sequence[_Token], source: str) -> None:
    if len(following) < 2 or not FIELDS[variable]:
        return
    mark, token = following
    field = token.text if mark.text == "." else ""
    if mark.text == "[" and token.kind == "string":
        field = token.text.strip("rRbB").strip("\"'")
    if field and field not in FIELDS[variable]:
        raise ExpressionError(
            f"{variable} has no field {field!r} in {source!r}; it has {', '.join(sorted(FIELDS[variable]))}"
        )


def _text(tokens: Sequence[_Token], position: int) -> str:
    return tokens[position].text if 0 <= position < len(tokens) else ""


def _unknown_variable(name: str, source: str) -> str:
    return f"unknown variable {name!r} in {source!r}; known are {', '.join(sorted(FIELDS))}"
