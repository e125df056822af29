"""Keys for masking from a file: one secret, or one for each domain, readable by its owner alone."""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.pii.masking.keys import KeyRing

DEFAULT_DOMAIN = "default"
_MAKE = "make one with: (umask 077; openssl rand -base64 32 > FILE)"


def read_key_file(path: Path) -> KeyRing:
    """Return the keys of a file: base64 alone (for the domain `default`), or YAML `domain: base64`.

    Raise `ConfigurationError` for a file that others can read, and for anything that is no such key.
    """
    import yaml

    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"{path}: others can read this key file; expected chmod 600")
        found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); {_MAKE}") from error
    except (UnicodeDecodeError, yaml.YAMLError):
        found = None  # the error may hold the key
    domains = {DEFAULT_DOMAIN: found} if isinstance(found, str) else found
    if not isinstance(domains, dict) or not domains:
        raise ConfigurationError(f"{path}: expected base64, or YAML with domain: base64; {_MAKE}")
    return key_ring_of(domains, named=str(path))


def key_ring_of(domains: Mapping[Any, object], *, named: str) -> KeyRing:
    """Return the keys of `domain: base64`; raise `ConfigurationError` naming where they came from."""
    return KeyRing(domains={str(domain): _decoded(named, domain, text) for domain, text in domains.items()})


def _decoded(named: str, domain: object, text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except binascii.Error:
        pass  # the error may hold the key
    raise ConfigurationError(f"{named}: the key of domain {str(domain)!r} is not base64; {_MAKE}")
