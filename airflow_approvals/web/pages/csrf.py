"""Forms of these pages only: a signed token in the form, its seed in a cookie, and the origin of the call.

The token is bound to the person and to a seed of the browser, not to Airflow's login cookie: Airflow renews
that one while a page stands open.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi import Request, Response

from airflow_approvals.core.errors import ConfigurationError, NotAllowedError
from airflow_approvals.core.model import Person
from airflow_approvals.settings import Settings
from airflow_approvals.web.pages.render import root_of

COOKIE = "approvals_form"
FIELD = "token"
_KEY_INFO = b"airflow-approvals form token v1"
_AGAIN = "load the page again, then answer"


def token_for(request: Request, person: Person, settings: Settings) -> str:
    """Return the token of this browser's forms; `keep_seed` must see the response."""
    seed = request.cookies.get(COOKIE, "")
    if not 20 <= len(seed) <= 100 or not seed.isascii():
        seed = secrets.token_urlsafe(32)
        request.state.approvals_new_seed = seed
    return _sign(seed, person, settings)


def keep_seed(request: Request, response: Response) -> None:
    """Give the browser its seed, if it has none yet."""
    seed = getattr(request.state, "approvals_new_seed", None)
    if seed is not None:
        response.set_cookie(
            COOKIE,
            seed,
            path=root_of(request) or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",  # strict would leave it out when somebody comes from Slack, and break open forms
        )


def check_form(request: Request, token: str, person: Person, settings: Settings) -> None:
    """Raise `NotAllowedError` unless a page of ours, loaded by this person in this browser, sent the form."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    own = {request.headers.get("host"), urlsplit(settings.base_url).netloc}
    if (origin is not None and urlsplit(origin).netloc not in own) or site not in ("same-origin", "none"):
        raise NotAllowedError(
            "this form was sent by a page of another site; open the request in Airflow and answer there"
        )
    seed = request.cookies.get(COOKIE, "")
    expected = _sign(seed, person, settings)
    if not seed or not hmac.compare_digest(token.encode(), expected.encode()):
        raise NotAllowedError(f"this form is not one that was made for this login in this browser; {_AGAIN}")


def _sign(seed: str, person: Person, settings: Settings) -> str:
    if not settings.worker_secret:
        raise ConfigurationError(
            "forms cannot be protected: set [approvals] worker_secret (or [api] secret_key)"
        )
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_KEY_INFO).derive(
        settings.worker_secret.encode()
    )
    return hmac.digest(key, f"{seed}\n{person}".encode(), "sha256").hex()
