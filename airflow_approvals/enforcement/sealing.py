"""Sealing what Airflow's metadata database holds: a connection's or variable's secret, out and in again.

Of a connection everything but its id, type and description is sealed: with the host in the open, whoever may
edit connections could send an approved password to a server of their own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cryptography.fernet import InvalidToken

from airflow_approvals.core.errors import ApprovalsError, ConfigurationError, InvalidRequestError
from airflow_approvals.core.lending import Kind
from airflow_approvals.core.sealed import NONCE_BYTES, Sealed, is_sealed, open_sealed, read_sealed, seal
from airflow_approvals.enforcement.keyring import Keyring

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

HOST = "sealed-by-airflow-approvals.invalid"
"""Stands in place of a sealed connection's host: who connects without an approval reads it in the error."""
LOGIN = "sealed"
PASSWORD = "sealed by airflow-approvals: only an approved task may read it"  # noqa: S105  # says that it is none
FIELDS = ("conn_type", "host", "login", "password", "schema", "port", "extra")
"""What is sealed of a connection, by the names that the execution API has for it."""


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One connection or variable, and its seal if it has one."""

    kind: Kind
    name: str
    sealed: Sealed | None
    problem: str | None = None  # why it cannot be told whether it has one


class Vault:
    """The connections and variables of the metadata database; every change is for the caller to record."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, kind: Kind, name: str) -> Sealed:
        """Seal the secret; raise `InvalidRequestError` when there is none or it is sealed already."""
        with _session() as session:
            row = _row(session, kind, name)
            if is_sealed(_stored(kind, row)):
                raise InvalidRequestError(f"{kind} {name} is sealed already; `unseal` it to change it")
            sealed = self._sealed(kind, name, _content(kind, row))
            _replace(kind, row, sealed)
            return sealed

    def unseal(self, kind: Kind, name: str) -> None:
        """Put the secret back as it was; raise `InvalidRequestError` when it is not sealed."""
        with _session() as session:
            row = _row(session, kind, name)
            if not is_sealed(_stored(kind, row)):
                raise InvalidRequestError(f"{kind} {name} is not sealed")
            content = self.open(read_sealed(_stored(kind, row) or "", kind=kind, name=name))
            _restore(session, kind, row, content)

    def reseal(self, kind: Kind, name: str) -> Sealed:
        """Seal a sealed secret anew with the current key."""
        with _session() as session:
            row = _row(session, kind, name)
            content = self.open(read_sealed(_stored(kind, row) or "", kind=kind, name=name))
            sealed = self._sealed(kind, name, content)
            _replace(kind, row, sealed)
            return sealed

    def open(self, sealed: Sealed) -> dict[str, Any]:
        """Return what was sealed."""
        return open_sealed(sealed, self._keyring.key_of(sealed))

    def _sealed(self, kind: Kind, name: str, content: dict[str, Any]) -> Sealed:
        return seal(
            content,
            kind=kind,
            name=name,
            keyid=self._keyring.current,
            key=self._keyring.key,
            nonce=secrets.token_bytes(NONCE_BYTES),
        )


def all_secrets() -> list[Secret]:
    """Return every connection and variable of the metadata database, by kind and name."""
    from airflow.models import Connection, Variable
    from sqlalchemy import select

    with _session() as session:
        connections: Any = session.scalars(select(Connection).order_by(Connection.conn_id))
        found = [_secret("connection", row.conn_id, row) for row in connections]
        variables: Any = session.scalars(select(Variable).order_by(Variable.key))
        return [*found, *(_secret("variable", row.key, row) for row in variables)]


def _secret(kind: Kind, name: str, row: Any) -> Secret:
    try:
        text = _stored(kind, row)
        sealed = read_sealed(text or "", kind=kind, name=name) if is_sealed(text) else None
    except (ApprovalsError, ValueError, InvalidToken) as error:
        problem = str(error) if isinstance(error, ApprovalsError) else "cannot be decrypted by Airflow itself"
        return Secret(kind=kind, name=name, sealed=None, problem=problem)
    return Secret(kind=kind, name=name, sealed=sealed)


@contextmanager
def _session() -> Iterator[Session]:
    from airflow.utils.session import create_session

    with create_session() as session:
        yield session


def _row(session: Session, kind: Kind, name: str) -> Any:
    from airflow.models import Connection, Variable
    from sqlalchemy import select

    query: Any = (
        select(Connection).where(Connection.conn_id == name)
        if kind == "connection"
        else select(Variable).where(Variable.key == name)
    )
    row = session.scalar(query.with_for_update())
    if row is None:
        raise InvalidRequestError(
            f"{kind} {name}: there is none in the metadata database; what other secrets backends or the "
            "environment hold cannot be sealed"
        )
    return row


def _stored(kind: Kind, row: Any) -> str | None:
    """Return the text in which the seal would stand."""
    text: str | None = row.extra if kind == "connection" else row.val
    return text


def _content(kind: Kind, row: Any) -> dict[str, Any]:
    if kind == "variable":
        if row.val is None:
            raise ConfigurationError(
                "the variable cannot be decrypted with [core] fernet_key; correct the key, then seal"
            )
        return {"value": row.val}
    return {
        "conn_type": row.conn_type,
        "host": row.host,
        "login": row.login,
        "password": row.password,
        "schema": row.schema,
        "port": row.port,
        "extra": row.extra,
    }


def _replace(kind: Kind, row: Any, sealed: Sealed) -> None:
    if kind == "variable":
        row.val = sealed.text()
        return
    row.host, row.login, row.schema, row.port = HOST, LOGIN, None, None
    row.password = PASSWORD
    row.extra = sealed.text()


def _restore(session: Session, kind: Kind, row: Any, content: dict[str, Any]) -> None:
    if kind == "variable":
        row.val = content["value"]
        return
    row.conn_type, row.host, row.login = content["conn_type"], content["host"], content["login"]
    row.schema, row.port = content["schema"], content["port"]
    row.extra = content["extra"]
    row.password = content["password"]
    if not content["password"]:
        # Airflow's model has no way to take a password away again.
        from airflow.models import Connection
        from sqlalchemy import Table, update

        session.flush()
        table = cast(Table, Connection.__table__)
        empty = {"password": content["password"], "is_encrypted": False}
        session.execute(update(table).where(table.c.id == row.id).values(**empty))
