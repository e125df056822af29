"""The keys that sealed secrets open with: a file of our own, readable by the API server alone.

It holds one key that seals, and, while `rotate-seal` is at work, the one before.
"""

from __future__ import annotations

import base64
import json
import secrets
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_approvals.core.canonical import sha256_hex
from airflow_approvals.core.errors import ConfigurationError, SealBrokenError
from airflow_approvals.core.sealed import KEY_BYTES, Sealed
from airflow_approvals.whole_files import write_whole, write_whole_once

KEY_FILE = Path("approvals") / "keys" / "sealing_keys.json"
_ID_LENGTH = 16


@dataclass(frozen=True, kw_only=True, repr=False)
class Keyring:
    """The keys by their ids, and which of them seals."""

    current: str
    keys: dict[str, bytes]

    @property
    def key(self) -> bytes:
        return self.keys[self.current]

    def key_of(self, sealed: Sealed) -> bytes:
        """Return the key that opens `sealed`; raise `SealBrokenError` when it is not here."""
        if sealed.keyid not in self.keys:
            raise SealBrokenError(
                f"{sealed.kind} {sealed.name}: it was sealed with key {sealed.keyid}, which is not here "
                f"(there are {', '.join(sorted(self.keys))}); restore the sealing keys from a backup"
            )
        return self.keys[sealed.keyid]

    def rotated(self) -> Keyring:
        """Return these keys with a new one that seals from now on."""
        keyid, key = _new_key()
        return replace(self, current=keyid, keys={**self.keys, keyid: key})

    def only_current(self) -> Keyring:
        """Return the key that seals, alone."""
        return replace(self, keys={self.current: self.key})


def key_path(configured: str, home: Path) -> Path:
    """Return where the keys are."""
    return Path(configured) if configured else home / KEY_FILE


def load_keyring(path: Path) -> Keyring:
    """Return the keys; raise `ConfigurationError` when there are none, or others could read them too."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"[approvals] sealing_keys: {path} cannot be read ({type(error).__name__}); it must be on every "
            "API server, and where secrets are sealed: the first `airflow approvals seal` makes it"
        ) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"[approvals] sealing_keys: {path} is open to others (mode {mode:04o}), who could open every "
            f"sealed secret; run `chmod 600 {path}`, then `airflow approvals rotate-seal`"
        )
    try:
        told = json.loads(text)
        keys = {str(keyid): base64.b64decode(key, validate=True) for keyid, key in told["keys"].items()}
        keyring = Keyring(current=str(told["current"]), keys=keys)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            f"[approvals] sealing_keys: {path} holds no sealing keys; restore it from a backup"
        ) from None
    if keyring.current not in keys or any(len(key) != KEY_BYTES for key in keys.values()):
        raise ConfigurationError(
            f"[approvals] sealing_keys: {path} holds a key that cannot seal; restore it from a backup"
        )
    return keyring


def load_or_make_keyring(path: Path) -> Keyring:
    """Return the keys, made now if there are none yet; of two makers at once, one wins."""
    if not path.exists():
        keyid, key = _new_key()
        save_keyring(path, Keyring(current=keyid, keys={keyid: key}), is_new=True)
    return load_keyring(path)


def save_keyring(path: Path, keyring: Keyring, *, is_new: bool = False) -> None:
    """Write the keys, whole or not at all; with `is_new` those that are there already stay."""
    text = json.dumps(
        {
            "current": keyring.current,
            "keys": {keyid: base64.b64encode(key).decode() for keyid, key in keyring.keys.items()},
        },
        indent=2,
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write = write_whole_once if is_new else write_whole
        write(path, text.encode())
    except OSError as error:
        raise ConfigurationError(
            f"[approvals] sealing_keys: {path} cannot be written ({type(error).__name__}); make its folder "
            "writable for whoever seals"
        ) from error


def _new_key() -> tuple[str, bytes]:
    key = secrets.token_bytes(KEY_BYTES)
    return sha256_hex(b"airflow-approvals sealing key\0" + key)[:_ID_LENGTH], key
