"""Exit codes: one table from what happened to what a script sees."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from airflow_approvals.core.errors import (
    AlreadyDecidedError,
    ApprovalsError,
    DigestMismatchError,
    InvalidRequestError,
    NotAllowedError,
    NotApprovedError,
    NotAuthenticatedError,
    ReceiptGoneError,
    ReceiptUsedError,
    RequestNotFoundError,
    ServiceUnavailableError,
    StaleRevisionError,
    VerificationError,
)


class Exit(IntEnum):
    """What a command ends with."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_APPROVED = 3
    NOT_ALLOWED = 4
    NOT_VERIFIED = 5
    UNAVAILABLE = 6
    MOVED_ON = 7
    PII_FOUND = 8


@dataclass(frozen=True, kw_only=True)
class ExitRow:
    """One row of the table: the code, its meaning in words, the errors that lead to it."""

    code: Exit
    meaning: str
    errors: tuple[type[ApprovalsError], ...] = ()


TABLE: tuple[ExitRow, ...] = (
    ExitRow(code=Exit.OK, meaning="done"),
    ExitRow(code=Exit.ERROR, meaning="an error of another kind: policy file, configuration, staged data"),
    ExitRow(
        code=Exit.USAGE,
        meaning="wrong use: options, an unknown or ambiguous request",
        errors=(InvalidRequestError, RequestNotFoundError),
    ),
    ExitRow(
        code=Exit.NOT_APPROVED,
        meaning="the request is not approved: denied, expired, cancelled, revoked, lapsed",
        errors=(NotApprovedError, ReceiptGoneError, ReceiptUsedError),
    ),
    ExitRow(
        code=Exit.NOT_ALLOWED,
        meaning="not logged in, or not allowed",
        errors=(NotAuthenticatedError, NotAllowedError),
    ),
    ExitRow(
        code=Exit.NOT_VERIFIED,
        meaning="verification failed: a signature, a digest or a proof is wrong",
        errors=(VerificationError, DigestMismatchError),
    ),
    ExitRow(
        code=Exit.UNAVAILABLE,
        meaning="the service cannot be reached",
        errors=(ServiceUnavailableError,),
    ),
    ExitRow(
        code=Exit.MOVED_ON,
        meaning="the request has moved on: already decided, or changed since it was shown",
        errors=(AlreadyDecidedError, StaleRevisionError),
    ),
    ExitRow(
        code=Exit.PII_FOUND, meaning="personal data was found, and `pii scan --on-pii fail` asked for none"
    ),
)


def exit_of(error: ApprovalsError) -> Exit:
    """Return the exit code of `error`."""
    return next((row.code for row in TABLE if isinstance(error, row.errors)), Exit.ERROR)


def exits_text() -> str:
    """Return the table as it stands in `--help` and in docs/reference.md."""
    return "\n".join(f"  {row.code:d}  {row.meaning}" for row in TABLE)
