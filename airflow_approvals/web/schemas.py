"""What callers send: checked at the border, unknown keys refused, values never repeated in an error."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from airflow_approvals.core.model import (
    Action,
    Channel,
    Evidence,
    Snapshot,
    Verdict,
    dataset_digest,
    from_json,
    to_json,
)

MAX_DEPTH = 32
"""Levels of lists and objects in a body."""

MAX_NUMBER = 2**53
"""Beyond it two programs may read two numbers."""

_ID = 250
_SHA256 = r"^[0-9a-f]{64}$"

Sha256 = Annotated[str, Field(pattern=_SHA256)]
Text = Annotated[str, Field(max_length=10_000)]  # `gate.check_text` says the real limit, in words


class Body(BaseModel):
    """A JSON object with no other keys than these, in plain Unicode, not nested without end."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        check_plain(value)
        return value


class OpeningBody(Body):
    """What should be approved."""

    action: Action
    evidence: Evidence = Evidence()
    gate: Annotated[str, Field(max_length=_ID, pattern=r"^[A-Za-z0-9_.\-]*$")] = ""
    policy: Annotated[str, Field(max_length=_ID)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, value: Any) -> Any:
        # A key that was dropped in silence would be missing from what is shown and signed.
        if isinstance(value, dict):
            for name, noun in (("action", Action), ("evidence", Evidence)):
                if isinstance(value.get(name), dict):
                    check_known_keys(value[name], to_json(from_json(noun, value[name])), name)
        return value

    @model_validator(mode="after")
    def _digests(self) -> OpeningBody:
        check_evidence(self.evidence)
        return self


class ExplainBody(Body):
    """An action to try the policy on."""

    action: Action
    evidence: Evidence = Evidence()
    dag_id: Annotated[str, Field(max_length=_ID)] | None = None


class VoteBody(Body):
    """One person's answer to what they saw at `revision`."""

    verdict: Verdict
    revision: Annotated[int, Field(ge=1)]
    reason: Text = ""
    channel: Literal[Channel.API, Channel.CLI, Channel.PAGE] = Channel.API


class QuestionBody(Body):
    """What an approver wants to know."""

    text: Text


class AnswerBody(Body):
    """What the requester says to it."""

    question_id: Annotated[int, Field(ge=1)]
    text: Text


class ReasonBody(Body):
    """Why something is taken back."""

    reason: Text = ""


class StandingBody(Body):
    """For how long an approval shall answer later runs, and where they may read and write instead."""

    days: Annotated[int, Field(ge=1, le=365)]
    source: Annotated[str | None, Field(max_length=4096)] = None
    destination: Annotated[str | None, Field(max_length=4096)] = None


class BreakGlassBody(Body):
    """Why one person grants alone what they saw at `revision`."""

    reason: Text
    revision: Annotated[int, Field(ge=1)]
    channel: Literal[Channel.API, Channel.CLI, Channel.PAGE] = Channel.API


class ReviewBody(Body):
    """What somebody says who has looked at an emergency grant afterwards."""

    remark: Text = ""


class RedeemBody(Body):
    """Which task instance uses the receipt up, for what."""

    ti_id: Annotated[str, Field(max_length=_ID)]
    digest: Sha256


class OutcomeBody(Body):
    """What the write did."""

    ti_id: Annotated[str, Field(max_length=_ID)]
    published: bool
    digest: Sha256 | None = None
    detail: Text = ""


def check_plain(value: Any, depth: int = 0) -> None:
    """Raise for text that databases and JSON cannot keep alike, and for nesting that nobody could show."""
    if depth > MAX_DEPTH:
        raise PydanticCustomError("nested_too_deep", "nested too deep")
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise PydanticCustomError("not_plain_text", "a NUL or half a character")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_plain(key, depth)
            check_plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_plain(inner, depth + 1)
    elif isinstance(value, int | float) and not abs(value) < MAX_NUMBER:  # NaN is not less either
        raise PydanticCustomError("not_exact", "a number that JSON cannot say exactly")


def check_known_keys(given: Any, known: Any, path: str) -> None:
    """Raise unless every key of `given` has been understood."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, inner in given.items():
            if key not in known:
                raise PydanticCustomError("unknown_key", "{path}: a key that is not known", {"path": path})
            check_known_keys(inner, known[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(known, list):
        for inner, understood in zip(given, known, strict=False):
            check_known_keys(inner, understood, path)


def check_evidence(evidence: Evidence) -> None:
    """Raise for digests that are none, counts below nothing, and a dataset that is not its files.

    Approvers see the dataset's digest and the receipt names the files': one must follow from the other.
    """
    for dataset in evidence.datasets:
        digests = [dataset.sha256, dataset.schema_sha256, *(file.sha256 for file in dataset.files)]
        if not all(re.fullmatch(_SHA256, digest) for digest in digests):
            raise PydanticCustomError("not_a_sha256", "a digest is not 64 lower-case hex digits")
        if min(dataset.rows, dataset.size, *(file.size for file in dataset.files), 0) < 0:
            raise PydanticCustomError("negative_count", "a count is below nothing")
        if not _is_of_its_files(dataset):
            raise PydanticCustomError("not_its_files", "digest or size of a dataset is not that of its files")


def _is_of_its_files(dataset: Snapshot) -> bool:
    files = dataset.files
    as_one = len(files) == 1 and dataset.sha256 == dataset_digest(files, is_folder=False)
    as_folder = len(files) > 0 and dataset.sha256 == dataset_digest(files, is_folder=True)
    return (as_one or as_folder) and dataset.size == sum(file.size for file in files)
