"""The credential of workers and the triggerer: a JWT good for one minute, its key derived from a secret.

It says which task instance speaks (`sub`), that the triggerer reads (`scope: read`), or that a lineage event
is told (`scope: lineage`). What a worker says about itself beyond that is not believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from airflow_approvals.core.errors import ClockSkewError, ConfigurationError, NotAuthenticatedError

ISSUER = "airflow-approvals"
AUDIENCE = "airflow-approvals/worker"
TRIGGERER = "triggerer"
LINEAGE = "lineage"
LIFETIME = 60
"""Seconds that a token lives, and by which two clocks may differ."""

_ALGORITHM = "HS256"
_KEY_INFO = b"airflow-approvals worker token v1"

Scope = Literal["worker", "read", "lineage"]


@dataclass(frozen=True, kw_only=True)
class WorkerClaims:
    """Who a worker token speaks for: a task instance, the triggerer (`read`), or Airflow's lineage."""

    subject: str
    scope: Scope


def worker_key(secret: str) -> bytes:
    """Return the signing key (RFC 5869 HKDF-SHA256) of workers' tokens; refuse an empty secret."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if not secret:
        raise ConfigurationError(
            "workers cannot log in: set [approvals] worker_secret (or [api] secret_key) to the same value "
            "on the API server, the workers and the triggerer"
        )
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_KEY_INFO).derive(secret.encode())


def issue_worker_token(key: bytes, claims: WorkerClaims, *, now: datetime, token_id: str) -> str:
    """Return a token for one call, good for a minute from `now`."""
    import jwt

    issued = int(now.timestamp())
    payload = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": claims.subject,
        "scope": claims.scope,
        "iat": issued,
        "exp": issued + LIFETIME,
        "jti": token_id,
    }
    return jwt.encode(payload, key, algorithm=_ALGORITHM)


def is_worker_token(token: str) -> bool:
    """Return whether `token` claims to be one of ours; it is believed only after `verify_worker_token`."""
    import jwt

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, RecursionError):
        return False
    return claims.get("iss") == ISSUER or claims.get("aud") == AUDIENCE


def verify_worker_token(token: str, key: bytes, *, now: datetime) -> WorkerClaims:
    """Return whom `token` speaks for, or raise `NotAuthenticatedError` (`ClockSkewError`: by its time)."""
    import jwt

    try:
        # Time is judged below, against the caller's `now`; everything else by the library, in constant time.
        claims = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            options={
                "require": ["iss", "aud", "sub", "iat", "exp", "jti"],
                "verify_exp": False,
                "verify_iat": False,
            },
        )
    except (jwt.InvalidTokenError, RecursionError):
        raise NotAuthenticatedError(
            "worker token: not one that this server's secret signed; [approvals] worker_secret must be "
            "the same on the API server and on the worker"
        ) from None
    _check_time(claims, now)
    subject, scope = claims["sub"], claims.get("scope")
    if not isinstance(subject, str) or not subject or scope not in ("worker", "read", "lineage"):
        raise NotAuthenticatedError("worker token: expected a subject and scope worker, read or lineage")
    if (scope == "read") != (subject == TRIGGERER):
        raise NotAuthenticatedError(
            "worker token: scope read is the triggerer's, and the triggerer's only scope"
        )
    if (scope == "lineage") != (subject == LINEAGE):
        raise NotAuthenticatedError(
            "worker token: scope lineage is for telling lineage events, and for that alone"
        )
    return WorkerClaims(subject=subject, scope=cast(Scope, scope))


def _check_time(claims: dict[str, Any], now: datetime) -> None:
    issued, expires = claims["iat"], claims["exp"]
    if type(issued) is not int or type(expires) is not int or not 0 < expires - issued <= LIFETIME:
        raise NotAuthenticatedError(f"worker token: expected one that lives at most {LIFETIME} seconds")
    age = int(now.timestamp()) - issued
    if abs(age) > LIFETIME:
        side = "behind" if age > 0 else "ahead of"
        raise ClockSkewError(
            f"worker token: the worker's clock is {abs(age)} seconds {side} the server's (or the token is "
            f"old); at most {LIFETIME} are accepted: synchronize both clocks"
        )
    if int(now.timestamp()) >= expires + LIFETIME:
        raise NotAuthenticatedError("worker token: expired")
