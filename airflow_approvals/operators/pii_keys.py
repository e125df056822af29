"""The keys that masking is done under: from an Airflow connection or a key file, never from the DAG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_approvals.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from airflow_approvals.pii.masking.keys import KeyRing


def key_ring(*, conn_id: str | None, key_file: str | None) -> KeyRing:
    """Return the keys; none where neither is given: operators that need one then say so.

    A connection of any type: its password is the key of the domain `default`, and each entry of its extra one
    of another domain; all in base64.
    """
    from airflow_approvals.pii.masking.keys import KeyRing

    if conn_id is not None and key_file is not None:
        raise InvalidRequestError("keys_conn_id and key_file: expected one of them, found both")
    if conn_id is not None:
        return _from_connection(conn_id)
    if key_file is not None:
        from pathlib import Path

        from airflow_approvals.pii.masking.key_files import read_key_file

        return read_key_file(Path(key_file))
    return KeyRing()


def _from_connection(conn_id: str) -> KeyRing:
    from airflow.sdk import BaseHook

    from airflow_approvals.pii.masking.key_files import DEFAULT_DOMAIN, key_ring_of

    connection = BaseHook.get_connection(conn_id)
    password = {DEFAULT_DOMAIN: connection.password} if connection.password else {}
    domains = {**connection.extra_dejson, **password}
    if not domains:
        raise InvalidRequestError(
            f"connection {conn_id}: holds no key; expected base64 as its password (domain {DEFAULT_DOMAIN}), "
            "or extra with domain: base64"
        )
    return key_ring_of(domains, named=f"connection {conn_id}")
