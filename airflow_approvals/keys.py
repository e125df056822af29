"""The signing key: a file of our own by default, or a key in a KMS, a Vault or an HSM by its URI."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import ConfigurationError, ServiceUnavailableError, VerificationError
from airflow_approvals.core.signature import PublicKey, public_key_from_json, public_keys_in
from airflow_approvals.whole_files import write_whole_once

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from securesystemslib.signer import Signer as LibrarySigner

KEY_FILE = Path("approvals") / "keys" / "signing_key.pem"
_FILE_SCHEME = "file2:"  # as securesystemslib names PEM files


class KeySigner:
    """Signs with one key through securesystemslib."""

    def __init__(self, signer: LibrarySigner) -> None:
        self._signer = signer
        key = signer.public_key
        self.public_key: PublicKey = public_key_from_json({"keyid": key.keyid, **key.to_dict()})

    @property
    def keyid(self) -> str:
        return self.public_key.keyid

    def sign(self, payload: bytes) -> bytes:
        """Return the raw signature, verified: one that nobody can verify must not leave this process.

        Raises `ServiceUnavailableError` when the key cannot be used now, `ConfigurationError` when it is not
        the key that is published.
        """
        try:
            signature = bytes.fromhex(self._signer.sign(payload).signature)
        except Exception as error:
            # Every KMS client has errors of its own; none of them may leave half a decision.
            raise ServiceUnavailableError(
                f"signing key {self.keyid} cannot sign ({type(error).__name__}); "
                "nothing was decided, try again"
            ) from error
        try:
            self.public_key.verify(signature, payload)
        except VerificationError as error:
            raise ConfigurationError(
                "[approvals] public_key_file is not the public half of signing_key; put the right one there"
            ) from error
        return signature

    def public_key_json(self) -> dict[str, Any]:
        return self.public_key.to_json()


def load_signer(uri: str, *, public_key_file: Path | None = None, home: Path) -> KeySigner:
    """Return the signer that `uri` names; raise `ConfigurationError` when it cannot be used.

    "" is the key file under `home`, made on first use; `file2:PATH` is a PEM file of your own. Any other URI
    goes to securesystemslib (`awskms:`, `gcpkms:`, `azurekms:`, `hv:`, `hsm:`) and needs the public key, PEM
    or JSON, in `public_key_file`.
    """
    from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

    public = _public_key(public_key_file) if public_key_file else None
    key = SSlibKey.from_dict(public.keyid, public.to_json()) if public else None
    try:
        if not uri or uri.startswith(_FILE_SCHEME):
            path = Path(uri.removeprefix(_FILE_SCHEME)) if uri else _own_key_file(home)
            return KeySigner(CryptoSigner(_private_key(path), key))
        if key:
            return KeySigner(Signer.from_priv_key_uri(uri, key))
    except ConfigurationError:
        raise
    except Exception as error:
        # The message of a KMS client may repeat credentials: name its type alone.
        raise ConfigurationError(
            f"[approvals] signing_key: the key cannot be used ({type(error).__name__}); check the URI, "
            "public_key_file, and the credentials and extra package that this kind of key needs"
        ) from error
    raise ConfigurationError(
        "[approvals] public_key_file is missing: a key that lives elsewhere cannot tell its public half; "
        "name a file with it, PEM or JSON"
    )


def _public_key(path: Path) -> PublicKey:
    found = public_keys_in(_read(path, "public_key_file"))
    if len(found) != 1:
        raise ConfigurationError(
            f"[approvals] public_key_file: expected the one key that signs, found {len(found)} keys"
        )
    return next(iter(found.values()))


def _private_key(path: Path) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    _check_private(path)
    try:
        return load_pem_private_key(_read(path, "signing_key").encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"[approvals] signing_key: {path} is no PEM private key without a passphrase; "
            "restore it from a backup, or move it away to get a new one"
        ) from None


def _own_key_file(home: Path) -> Path:
    """Return our key file; make it if need be. Of processes that start at once one wins, all use its key."""
    from securesystemslib.signer import CryptoSigner

    path = home / KEY_FILE
    if path.exists():
        return path
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write_whole_once(path, CryptoSigner.generate_ed25519().private_bytes)
    except OSError as error:
        raise ConfigurationError(
            f"[approvals] signing_key: no key file can be made at {path} ({error.strerror}); "
            "make the folder writable, or set signing_key"
        ) from error
    return path


def _check_private(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigurationError(
            f"[approvals] signing_key: {path} cannot be read ({error.strerror}); check the path"
        ) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"[approvals] signing_key: {path} is open to others (mode {mode:04o}), who could sign approvals; "
            f"run `chmod 600 {path}`, and make a new key if others have had access"
        )


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"[approvals] {option}: {path} cannot be read as text ({type(error).__name__}); check the path"
        ) from error
