"""Every error that is raised on purpose, grouped by who must act, each with a stable `type` word.

The word is what programs match on: it is the `type` of the RFC 9457 problem that the API answers with, and
from it the client raises the same class again on the worker's side. A message says subject, expected, found
and what to do next, and never holds a secret or a value from the data.
"""

from __future__ import annotations

from typing import ClassVar


class ApprovalsError(Exception):
    """The base of everything this package raises on purpose."""

    type: ClassVar[str] = "approvals-error"


# --- the caller must ask differently -------------------------------------------------------------------


class InvalidRequestError(ApprovalsError):
    """What was asked is malformed or contradicts itself."""

    type = "invalid-request"


class ReportMismatchError(InvalidRequestError):
    """A PII report speaks of other bytes than those that would move, or is not the one that was written."""

    type = "report-mismatch"


class NotAuthenticatedError(ApprovalsError):
    """Nobody, or nobody we can recognise, is behind this call."""

    type = "not-authenticated"


class ClockSkewError(NotAuthenticatedError):
    """The caller's clock and ours are too far apart for its credential to be judged."""

    type = "clock-skew"


class NotAllowedError(ApprovalsError):
    """The caller is known, and may not do this."""

    type = "not-allowed"


class VoteRefusedError(NotAllowedError):
    """This person may not vote on this request."""

    type = "vote-refused"


class TaskInstanceRefusedError(NotAllowedError):
    """The task instance that a worker names does not exist, does not run, or is not the one concerned."""

    type = "task-instance-refused"


class NotLentError(NotAllowedError):
    """This task instance holds no approval that covers the sealed or protected secret that it reads."""

    type = "not-lent"


class RequestNotFoundError(ApprovalsError):
    """There is no such request, or the caller may not see it."""

    type = "request-not-found"


class IdempotencyConflictError(ApprovalsError):
    """The same Idempotency-Key was used before for something else."""

    type = "idempotency-conflict"


# --- the world has moved on; look again ----------------------------------------------------------------


class StaleRevisionError(ApprovalsError):
    """The request has changed since the caller looked at it."""

    type = "stale-revision"


class AlreadyDecidedError(ApprovalsError):
    """The request is no longer open for this move."""

    type = "already-decided"


class TransitionError(AlreadyDecidedError):
    """The state machine has no such move."""

    type = "no-such-transition"


class ReceiptUsedError(ApprovalsError):
    """The receipt was redeemed before, by another task instance or try."""

    type = "receipt-used"


class ReceiptGoneError(ApprovalsError):
    """The approval was revoked, has lapsed, or its policy has changed since."""

    type = "receipt-gone"


class DigestMismatchError(ApprovalsError):
    """What would be published is not what was approved."""

    type = "digest-mismatch"

    def __init__(self, message: str, *, expected: str | None = None, found: str | None = None) -> None:
        super().__init__(message)
        self.expected = expected  # sha256 in hex
        self.found = found


class NotApprovedError(ApprovalsError):
    """The request is not approved (pending, denied, expired, cancelled, superseded, revoked or lapsed)."""

    type = "not-approved"


# --- the platform owner must act -----------------------------------------------------------------------


class PolicyError(ApprovalsError):
    """The policy file is broken; the message names line and reason."""

    type = "policy-invalid"


class NoPolicyError(ApprovalsError):
    """No policy covers this action, or the one that does is not the one the DAG asserts."""

    type = "no-policy"


class PolicyDeniesError(ApprovalsError):
    """A `deny_if` expression of the policy holds for this evidence."""

    type = "policy-denies"


class ConfigurationError(ApprovalsError):
    """A setting is missing or cannot be used."""

    type = "configuration"


class VersionMismatchError(ConfigurationError):
    """The API server's airflow-approvals is older than the one that asks, and lacks what is asked for."""

    type = "version-mismatch"


class MissingExtraError(ConfigurationError):
    """An optional dependency is not installed."""

    type = "missing-extra"


class ModelMissingError(ConfigurationError):
    """A language model that the configuration names is not installed."""

    type = "model-missing"


class ServiceUnavailableError(ApprovalsError):
    """The approvals service cannot be reached, or does not answer; nothing was decided."""

    type = "service-unavailable"


# --- the data engineer must act ------------------------------------------------------------------------


class DatasetError(ApprovalsError):
    """Staged data cannot be used as it is."""

    type = "dataset"


class SourceMissingError(DatasetError):
    """There is nothing at the source, or nothing that can be read."""

    type = "source-missing"


class SourceEmptyError(DatasetError):
    """The source holds no bytes or no rows."""

    type = "source-empty"


class SourceUnreadableError(DatasetError):
    """The source is not what its format says; the message names file and row, never a value."""

    type = "source-unreadable"


class SourceChangedError(DatasetError):
    """The source changed while it was read, or since it was approved."""

    type = "source-changed"


class SchemaMismatchError(DatasetError):
    """The source has other columns or types than declared."""

    type = "schema-mismatch"


class DestinationError(DatasetError):
    """The destination cannot take the data; it is as it was before."""

    type = "destination"


class PiiFoundError(DatasetError):
    """Personal data was found where there must be none."""

    type = "pii-found"


class CellTooLongError(DatasetError):
    """One cell is longer than the language model takes."""

    type = "cell-too-long"


class WorkerLostError(DatasetError):
    """A worker process died again and again on the same rows."""

    type = "worker-lost"


class LostWriteError(DatasetError):
    """A worker was lost at the write, and the destination does not tell whether it was done."""

    type = "lost-write"


# --- the auditor must act ------------------------------------------------------------------------------


class VerificationError(ApprovalsError):
    """Evidence does not hold: a signature, a digest or a proof is wrong."""

    type = "verification-failed"


class LedgerTamperedError(VerificationError):
    """The ledger is not the one that was signed; `index` names the first wrong entry, if one can be named."""

    type = "ledger-tampered"

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class FindingsDifferError(VerificationError):
    """The fast scan and Presidio do not find the same; nothing that it found may be relied on."""

    type = "findings-differ"


class ReceiptInvalidError(VerificationError):
    """A receipt is not signed by a known key, or does not say what it is used for."""

    type = "receipt-invalid"


class SealBrokenError(VerificationError):
    """A sealed secret does not open: it was changed, moved, or its key is gone."""

    type = "seal-broken"


def error_types() -> dict[str, type[ApprovalsError]]:
    """Return every error class by its `type` word."""
    found: dict[str, type[ApprovalsError]] = {}
    pending = [ApprovalsError]
    while pending:
        cls = pending.pop()
        found[cls.type] = cls
        pending.extend(cls.__subclasses__())
    return found
