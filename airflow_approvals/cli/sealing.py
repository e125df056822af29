"""`seal`, `unseal`, `rotate-seal`: on the machine of the API server, which alone has the keys."""

from __future__ import annotations

import getpass
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.output import print_line
from airflow_approvals.core.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from airflow_approvals.core.lending import Kind
    from airflow_approvals.core.sealed import Sealed
    from airflow_approvals.enforcement.sealing import Secret
    from airflow_approvals.service import Service
    from airflow_approvals.settings import Settings


def seal(args: Namespace) -> int:
    """Seal what is named, or with `--protected` everything that the policy file protects."""
    from airflow_approvals.enforcement.keyring import key_path, load_or_make_keyring
    from airflow_approvals.enforcement.sealing import Vault

    service, settings = _service()
    if bool(args.names) == args.protected:
        raise InvalidRequestError("name what to seal, or give --protected")
    named = [(_kind(args), name) for name in args.names]
    chosen = list(_protected(service)) if args.protected else named
    vault = Vault(load_or_make_keyring(key_path(settings.sealing_keys, settings.home)))
    for kind, name in chosen:
        sealed = vault.seal(kind, name)
        _record(service, "sealed", kind, name, sealed)
        print_line(f"{kind} {name}: sealed with key {sealed.keyid}")
        if service.find_protection(kind, name) is None:
            print_line(
                f"note: the policy file does not name it under protected_{kind}s; it is guarded all the same"
            )
    if not chosen:
        print_line("nothing to seal: all that is protected is sealed already")
    return Exit.OK


def unseal(args: Namespace) -> int:
    """Put secrets back into the open, as they were before they were sealed."""
    from airflow_approvals.enforcement.joined import open_vault_of

    service, settings = _service()
    vault = open_vault_of(settings)
    for name in args.names:
        vault.unseal(_kind(args), name)
        _record(service, "unsealed", _kind(args), name, None)
        print_line(f"{_kind(args)} {name}: in the open again")
    return Exit.OK


def rotate(args: Namespace) -> int:
    """Seal everything that is sealed with a new key, and forget the old one.

    The old key goes last: cut off half-way, everything still opens, and the next run takes it up.
    """
    from airflow_approvals.enforcement.keyring import key_path, load_keyring, save_keyring
    from airflow_approvals.enforcement.sealing import Vault, all_secrets

    service, settings = _service()
    path = key_path(settings.sealing_keys, settings.home)
    secrets = all_secrets()
    _check_readable(secrets)
    keyring = load_keyring(path).rotated()
    vault = Vault(keyring)
    save_keyring(path, keyring)
    count = 0
    for secret in secrets:
        if secret.sealed is not None:
            _record(service, "resealed", secret.kind, secret.name, vault.reseal(secret.kind, secret.name))
            count += 1
    save_keyring(path, keyring.only_current())
    print_line(f"{count} sealed anew with key {keyring.current}; the old keys are gone")
    return Exit.OK


def _service() -> tuple[Service, Settings]:
    try:
        from airflow_approvals.settings import read_settings
        from airflow_approvals.wiring import build_service

        settings = read_settings()
    except ImportError as error:
        raise ConfigurationError(
            "Airflow is not installed here: seal where its API server runs, with its configuration"
        ) from error
    return build_service(settings), settings


def _kind(args: Namespace) -> Kind:
    return "variable" if args.variable else "connection"


def _protected(service: Service) -> Iterator[tuple[Kind, str]]:
    from airflow_approvals.enforcement.sealing import all_secrets

    secrets = all_secrets()
    _check_readable(secrets)
    for secret in secrets:
        if secret.sealed is None and service.find_protection(secret.kind, secret.name):
            yield secret.kind, secret.name


def _check_readable(secrets: list[Secret]) -> None:
    for secret in secrets:
        if secret.problem:
            raise ConfigurationError(f"{secret.kind} {secret.name}: {secret.problem}")


def _record(service: Service, what: str, kind: Kind, name: str, sealed: Sealed | None) -> None:
    from airflow_approvals.service.lending import SealChange

    change = SealChange(
        what=what,
        kind=kind,
        name=name,
        digest=sealed.digest if sealed else None,
        keyid=sealed.keyid if sealed else None,
    )
    service.record_seal(change, actor=f"operator:{getpass.getuser()}", now=datetime.now(UTC))
