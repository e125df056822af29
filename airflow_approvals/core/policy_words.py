"""The single words of a policy file: durations, names, globs, expressions; refused at load when wrong."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StrictStr, WithJsonSchema

from airflow_approvals.core.drift import check_void_word
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.expressions import ExpressionError, check_expression
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.policy_match import check_glob

MAX_DURATION = timedelta(days=90)
KIND = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""How the kind of an action is spelled; another spelling would be a way around a policy."""

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION_PATTERN = r"^[1-9][0-9]{0,6}[smhd]$"
_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def parse_duration(text: object) -> timedelta:
    """Return the time that `90s`, `30m`, `4h` or `2d` stands for; raise `ValueError` for anything else."""
    if isinstance(text, timedelta):
        found = text
    elif isinstance(text, str) and re.fullmatch(_DURATION_PATTERN, text):
        found = timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
    else:
        raise ValueError("expected a duration like 90s, 30m, 4h or 2d")
    if not timedelta(0) < found <= MAX_DURATION:
        raise ValueError(f"expected a duration of at most {MAX_DURATION.days}d and more than nothing")
    return found


def duration_text(duration: timedelta) -> str:
    """Return `duration` the way the policy file writes it, in the largest unit that is exact."""
    seconds = int(duration.total_seconds())
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def _expression(source: str) -> str:
    try:
        check_expression(source)
    except ExpressionError as error:
        raise ValueError(str(error)) from None
    return source


def _glob(glob: str) -> str:
    check_glob(glob)
    return glob


def _user(name: str) -> str:
    try:
        return person_named(name)
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["90s", "30m", "4h", "2d"]}),
]
Name = Annotated[StrictStr, Field(pattern=_NAME_PATTERN)]
User = Annotated[StrictStr, AfterValidator(_user)]
Expression = Annotated[StrictStr, Field(min_length=1), AfterValidator(_expression)]
UriGlob = Annotated[StrictStr, Field(min_length=1), AfterValidator(_glob)]
NameGlob = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._*-]{1,250}$")]
VoidWord = Annotated[StrictStr, Field(min_length=1, max_length=100), AfterValidator(check_void_word)]
Kind = Annotated[StrictStr, Field(pattern=r"^([a-z][a-z0-9_]{0,62}|\*)$")]
