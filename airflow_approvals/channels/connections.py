"""Airflow connections of channels: found anew for every message, so a changed secret needs no restart."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from airflow_approvals.connections import find_connection
from airflow_approvals.core.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

Hook = TypeVar("Hook")


def connection_of(conn_id: str) -> Connection:
    """Return the connection; raise `ConfigurationError` when it is not there or cannot be read."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    try:
        return find_connection(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"connection {conn_id}: there is none; add it in Airflow, or correct conn_id in the policy file"
        ) from error
    except Exception as error:  # whatever Airflow's secrets backends raise
        raise ConfigurationError(
            f"connection {conn_id}: not readable ({type(error).__name__}); look at it in Airflow"
        ) from error


def with_connections(hook: Hook) -> Hook:
    """Return a hook that finds its connection as `connection_of` does."""
    hook.get_connection = connection_of  # type: ignore[attr-defined]
    return hook


def check_address(conn_id: str, address: str, *, kind: str = "http") -> str:
    """Return the host of `address`; raise `ConfigurationError` unless what goes there is encrypted.

    `kind` is http or ws. Loopback may do without encryption. The address itself is never in the message: it
    may be the secret.
    """
    secure = f"{kind}s"
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        sound = bool(host) and parts.port != 0 and address.isprintable() and " " not in address
    except ValueError:
        sound = False
    if not sound or parts.scheme not in (kind, secure):
        raise ConfigurationError(f"connection {conn_id}: it holds no {secure} address to send to")
    if parts.scheme == kind and not is_loopback(host):
        raise ConfigurationError(f"connection {conn_id}: it would be sent unencrypted; use {secure}")
    return host


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine, by name or number."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
