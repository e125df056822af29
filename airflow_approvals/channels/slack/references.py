"""What a button carries: which request, in which revision, with which content. Nothing in it is believed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from airflow_approvals.core.errors import InvalidRequestError, StaleRevisionError
from airflow_approvals.core.model import ApprovalRequest

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class PromptRef:
    """The request as the prompt showed it."""

    request_id: str
    revision: int
    digest: str  # the action digest

    @classmethod
    def of(cls, request: ApprovalRequest) -> PromptRef:
        return cls(request_id=request.id, revision=request.revision, digest=request.action_digest)

    @classmethod
    def from_value(cls, value: str) -> PromptRef:
        """Return what `to_value` wrote; raise `InvalidRequestError` for anything else."""
        try:
            request_id, revision, digest = json.loads(value)
        except (ValueError, TypeError) as error:
            raise InvalidRequestError("the button is not one of ours") from error
        sound = (
            isinstance(request_id, str)
            and isinstance(digest, str)
            and isinstance(revision, int)
            and not isinstance(revision, bool)
            and _ID.fullmatch(request_id)
            and _DIGEST.fullmatch(digest)
        )
        if not sound:
            raise InvalidRequestError("the button is not one of ours")
        return cls(request_id=request_id, revision=revision, digest=digest)

    def to_value(self) -> str:
        return json.dumps([self.request_id, self.revision, self.digest], separators=(",", ":"))

    def check_shows(self, request: ApprovalRequest) -> None:
        """Raise `StaleRevisionError` unless the prompt showed `request` as it is now."""
        if (self.revision, self.digest) != (request.revision, request.action_digest):
            raise StaleRevisionError(
                f"request {request.id} has changed since this was shown; look at it again, then answer"
            )
