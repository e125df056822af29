"""The signing key: made once, kept private, and the one that is published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signature, Signer

from airflow_approvals.core.errors import ConfigurationError, ServiceUnavailableError, VerificationError
from airflow_approvals.core.signature import public_key_from_json
from airflow_approvals.keys import KEY_FILE, KeySigner, load_signer


def key_file(folder: Path, signer: CryptoSigner | None = None, name: str = "key.pem") -> Path:
    path = folder / name
    path.write_bytes((signer or CryptoSigner.generate_ed25519()).private_bytes)
    path.chmod(0o600)
    return path


def public_file(folder: Path, *signers: CryptoSigner) -> Path:
    path = folder / "public.json"
    path.write_text(json.dumps({"keys": [KeySigner(signer).public_key_json() for signer in signers]}))
    return path


def test_the_first_start_makes_a_key_that_only_its_owner_can_read(tmp_path: Path) -> None:
    signer = load_signer("", home=tmp_path)
    path = tmp_path / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208  # hidden drafts too
    assert signer.public_key.scheme == "ed25519"
    signer.public_key.verify(signer.sign("é".encode()), "é".encode())


def test_the_key_stays_the_same_over_restarts(tmp_path: Path) -> None:
    assert load_signer("", home=tmp_path).keyid == load_signer("", home=tmp_path).keyid


def test_processes_that_start_at_once_end_with_one_key(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from airflow_approvals.keys import load_signer; "
        "import securesystemslib.signer; print('ready', flush=True); sys.stdin.read(); "
        "print(load_signer('', home=pathlib.Path(sys.argv[1])).keyid)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.close()
    found = set()
    for process in started:
        with process:
            assert process.stdout
            found.add(process.stdout.read().strip())
        assert process.returncode == 0
    assert found == {load_signer("", home=tmp_path).keyid}


def test_a_loser_of_the_race_uses_the_winners_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner = load_signer("", home=tmp_path)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as the loser saw it, a moment before
    assert load_signer("", home=tmp_path).keyid == winner.keyid


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601], ids=oct)
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        load_signer(f"file2:{path}", home=tmp_path)


def test_the_own_key_file_is_checked_too(tmp_path: Path) -> None:
    load_signer("", home=tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_signer("", home=tmp_path)


@pytest.mark.parametrize(
    "signer",
    [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ecdsa(), CryptoSigner.generate_rsa(size=2048)],
    ids=["ed25519", "ecdsa", "rsa"],
)
def test_a_key_file_of_ones_own_signs(tmp_path: Path, signer: CryptoSigner) -> None:
    loaded = load_signer(f"file2:{key_file(tmp_path, signer)}", home=tmp_path)
    again = public_key_from_json(loaded.public_key_json())
    again.verify(loaded.sign(b"data"), b"data")
    with pytest.raises(VerificationError):
        again.verify(loaded.sign(b"data"), b"date")


def test_a_public_key_of_another_private_key_is_refused(tmp_path: Path) -> None:
    public = public_file(tmp_path, CryptoSigner.generate_ed25519())
    with pytest.raises(ConfigurationError, match="KeyMismatchError"):
        load_signer(f"file2:{key_file(tmp_path)}", public_key_file=public, home=tmp_path)


def test_a_public_key_file_names_one_key(tmp_path: Path) -> None:
    public = public_file(tmp_path, CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519())
    with pytest.raises(ConfigurationError, match="found 2 keys"):
        load_signer(f"file2:{key_file(tmp_path)}", public_key_file=public, home=tmp_path)


BAD_FILES = {
    "empty": b"",
    "no PEM": b"key",
    "binary": b"\xff\xfe",
    "broken": b"-----BEGIN PRIVATE KEY-----\nx\n",
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / KEY_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        load_signer("", home=tmp_path)


def test_a_missing_key_file_of_ones_own_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_signer(f"file2:{tmp_path / 'none.pem'}", home=tmp_path)


def test_a_home_that_cannot_hold_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "approvals").write_text("a file where the folder should be")
    with pytest.raises(ConfigurationError, match="no key file can be made"):
        load_signer("", home=tmp_path)


def test_a_key_that_lives_elsewhere_needs_its_public_half(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="public_key_file is missing"):
        load_signer("awskms:alias/approvals", home=tmp_path)


def test_an_unknown_kind_of_key_is_refused(tmp_path: Path) -> None:
    public = public_file(tmp_path, CryptoSigner.generate_ed25519())
    with pytest.raises(ConfigurationError, match="ValueError"):
        load_signer("nonsense:x", public_key_file=public, home=tmp_path)


class RemoteKey(Signer):
    """A key service in the test's own process, reached by URI like a KMS."""

    private = CryptoSigner.generate_ecdsa()
    reachable = True

    def __init__(self, public_key: Key) -> None:
        self._public_key = public_key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: Any = None) -> RemoteKey:
        return cls(public_key)

    @property
    def public_key(self) -> Key:
        return self._public_key

    def sign(self, payload: bytes) -> Signature:
        if not self.reachable:
            raise ConnectionError("token=secret-of-the-client")
        return self.private.sign(payload)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> type[RemoteKey]:
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "remote", RemoteKey)
    monkeypatch.setattr(RemoteKey, "reachable", True)
    return RemoteKey


def test_a_key_service_signs_by_its_uri(tmp_path: Path, remote: type[RemoteKey]) -> None:
    pem = tmp_path / "public.pem"
    pem.write_text(KeySigner(remote.private).public_key.public)
    loaded = load_signer("remote:key", public_key_file=pem, home=tmp_path)
    loaded.public_key.verify(loaded.sign(b"data"), b"data")


def test_a_signature_that_the_published_key_cannot_verify_is_not_handed_out(
    tmp_path: Path, remote: type[RemoteKey]
) -> None:
    public = public_file(tmp_path, CryptoSigner.generate_ecdsa())
    with pytest.raises(ConfigurationError, match="not the public half"):
        load_signer("remote:key", public_key_file=public, home=tmp_path).sign(b"data")


def test_a_key_service_that_is_away_decides_nothing_and_tells_no_secret(
    tmp_path: Path, remote: type[RemoteKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_signer("remote:key", public_key_file=public_file(tmp_path, remote.private), home=tmp_path)
    monkeypatch.setattr(remote, "reachable", False)
    with pytest.raises(ServiceUnavailableError) as caught:
        loaded.sign(b"data")
    assert "secret-of-the-client" not in str(caught.value)
