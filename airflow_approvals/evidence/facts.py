"""What an entry of each kind must hold to be told in a report.

Whoever has the signing key, or a bug of ours, can put any facts into the ledger, and it verifies all the
same. An entry without the facts of its kind is a finding, by its index and the name of the fact: never an
error that keeps everything else from being told.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.moments import time_of

_MOST = 2**53  # more cannot stand in canonical JSON

_Count = Annotated[int, Field(ge=0, le=_MOST)]


def find_fault(entry: dict[str, Any]) -> str | None:
    """Return what keeps an entry from being told, by the names of its facts; None where nothing does."""
    try:
        _Entry.model_validate(entry)
        time_of(entry["time"])
        shape = _SHAPES.get(entry["kind"])
        if shape is not None:  # kinds that are not known here are counted, and change no state
            shape.model_validate(entry["data"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        fact = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        return f"its fact {fact} is {'missing' if first['type'] == 'missing' else 'not what it must be'}"
    except InvalidRequestError:
        return "its fact time is not what it must be"
    return None


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True)


class _Entry(_Facts):
    actor: str
    data: dict[str, Any]
    time: str


class _Action(_Facts):
    kind: str
    source: str | None
    destination: str | None
    justification: str


class _Dataset(_Facts):
    rows: _Count
    size: _Count
    sha256: str


class _Evidence(_Facts):
    datasets: list[_Dataset]
    pii: Any  # of any shape: see `reports`


class _Origin(_Facts):
    dag_id: str
    task_id: str
    run_id: str
    map_index: Annotated[int, Field(ge=-1, le=_MOST)]


class _Terms(_Facts):
    days: Annotated[int, Field(ge=0, le=36_525)]  # a date can be reckoned from
    dag_id: str
    task_id: str


class _Drift(_Facts):
    watched: str
    was: str
    now: str


class _Bound(_Facts):
    policy: str
    policy_digest: str


class _Opened(_Bound):
    action: _Action
    evidence: _Evidence
    origin: _Origin | None
    requesters: list[str]
    action_digest: str
    standing: _Terms | None = None
    voided: str | None = None
    drift: list[_Drift] = []


class _Vote(_Facts):
    voter: str
    verdict: Literal["approve", "deny"]
    channel: str
    reason: str
    groups: list[str]


class _Voted(_Facts):
    vote: _Vote


class _Granted(_Facts):
    kind: Literal["standing", "break_glass"]
    by: list[str]
    reason: str
    standing_id: str | None
    standing_receipt_sha256: str | None


class _Ended(_Facts):
    because: str


class _Approved(_Ended):
    receipt_sha256: str
    granted: _Granted | None = None
    regrouped: dict[str, list[str]] = {}


class _GlassBroken(_Facts):
    reason: str
    channel: str
    group: str


class _GlassReviewed(_Facts):
    remark: str


class _Outcome(_Facts):
    published: bool
    digest: str | None
    detail: str


class _Reported(_Facts):
    outcome: _Outcome


class _Secret(_Facts):
    kind: str
    name: str


class _Refused(_Facts):
    attempt: str
    type: str
    because: str


class _Match(_Facts):
    action: list[str] | None = None
    source: list[str] | None = None
    destination: list[str] | None = None
    dag_id: list[str] | None = None


class _Rule(_Facts):
    group: str
    approvals: _Count
    when: str | None = None


class _MayStand(_Facts):
    max_days: _Count
    void_on: list[str]


class _Glass(_Facts):
    group: str


class _Policy(_Facts):
    match: _Match
    require: list[_Rule]
    deny_if: list[str] = []
    self_approval: str
    expires_after: str
    receipt_valid_for: str
    channels: list[str] | None = None
    standing: _MayStand | None = None
    break_glass: _Glass | None = None


class _Loaded(_Facts):
    policies: list[str]
    digest: str
    rules: list[_Policy]


class _KeyAdded(_Facts):
    keyid: str


class _Account(_Facts):
    provider: str
    team_id: str
    user_id: str
    person: str


_SHAPES: dict[str, type[_Facts]] = {
    "request.opened": _Opened,
    "request.rebound": _Bound,
    "vote.cast": _Voted,
    "request.approved": _Approved,
    "glass.broken": _GlassBroken,
    "glass.reviewed": _GlassReviewed,
    "outcome.reported": _Reported,
    "attempt.refused": _Refused,
    "policy.loaded": _Loaded,
    "key.added": _KeyAdded,
    **{f"identity.{change}": _Account for change in ("linked", "unlinked")},
    **{f"secret.{change}": _Secret for change in ("lent", "sealed", "resealed", "unsealed")},
    **{
        f"request.{state}": _Ended
        for state in ("denied", "expired", "cancelled", "superseded", "revoked", "lapsed")
    },
}
"""What is read of each kind; whatever else an entry holds may be anything."""
