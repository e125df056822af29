"""The keys that masking is done under: handed in as bytes, never shown, one use each."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_approvals.core.errors import ConfigurationError

SHORTEST_KEY = 32  # bytes: as strong as the SHA-256 that they go into


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyRing:
    """One secret per domain: what is masked under the same domain joins, across tables and runs."""

    domains: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for domain, secret in self.domains.items():
            if len(secret) < SHORTEST_KEY:
                raise ConfigurationError(
                    f"the key of domain {domain!r} has {len(secret)} bytes; expected at least {SHORTEST_KEY} "
                    "random ones"
                )
        object.__setattr__(self, "domains", dict(self.domains))

    def key_for(self, domain: str, purpose: str, length: int = 32) -> bytes:
        """Return the key of `domain` for one purpose alone (HKDF-Expand, RFC 5869, with SHA-256).

        Raise `ConfigurationError` where there is no such domain: a default would be a key that all know.
        """
        secret = self.domains.get(domain)
        if secret is None:
            raise ConfigurationError(
                f"there is no key for domain {domain!r}; keys are there for {sorted(self.domains)}; "
                "add one, or name another domain in the masking plan"
            )
        root = hmac.digest(b"airflow-approvals masking v1", secret, hashlib.sha256)
        made, block, number = b"", b"", 0
        while len(made) < length:
            number += 1
            block = hmac.digest(root, block + purpose.encode() + bytes([number]), hashlib.sha256)
            made += block
        return made[:length]
