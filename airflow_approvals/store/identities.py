"""Which account elsewhere is whose: links that a logged-in person made, and the codes that lead to them.

Every link and every end of one is in the ledger, in the same transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from airflow_approvals.core.delivery import IdentityLink, LinkCode
from airflow_approvals.core.errors import InvalidRequestError, NotAllowedError
from airflow_approvals.core.model import EntryDraft, Person
from airflow_approvals.store import ledger
from airflow_approvals.store.engine import Database
from airflow_approvals.store.tables import identity_links, link_codes

_AT_ONCE = 500
"""Accounts in one question to the database."""


class SqlIdentities:
    """Links and codes in Airflow's metadata database; a code is kept as its digest."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def find_person(self, provider: str, team_id: str, user_id: str) -> Person | None:
        """Return whose account this is; None while nobody has said so."""
        query = select(identity_links.c.person).where(_is(identity_links, provider, team_id, user_id))
        with self._database.reading() as connection:
            found = connection.scalar(query)
        return None if found is None else Person(found)

    def find_people(self, provider: str, team_id: str, user_ids: Sequence[str]) -> Sequence[Person]:
        """Return whose accounts these are, each person once; accounts that nobody has linked are nobody's."""
        found: set[str] = set()
        with self._database.reading() as connection:
            for start in range(0, len(user_ids), _AT_ONCE):
                query = select(identity_links.c.person).where(
                    identity_links.c.provider == provider,
                    identity_links.c.team_id == team_id,
                    identity_links.c.user_id.in_(user_ids[start : start + _AT_ONCE]),
                )
                found.update(connection.scalars(query))
        return [Person(person) for person in sorted(found)]

    def save_code(self, code: str, told: LinkCode) -> None:
        """Keep the one code that this account was told last."""
        account = {"provider": told.provider, "team_id": told.team_id, "user_id": told.user_id}
        code_of = {"code_sha256": _digest(code), "expires_at": told.expires_at}
        with self._database.writing() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            # In one statement: somebody who presses twice is told two codes, and the last one is kept.
            connection.execute(
                dialect.insert(link_codes)
                .values(**account, **code_of)
                .on_conflict_do_update(index_elements=list(account), set_=code_of)
            )

    def find_code(self, code: str, *, now: datetime) -> LinkCode:
        """Return which account was told `code`; raise `InvalidRequestError` where none was, or long ago."""
        with self._database.reading() as connection:
            return _code(connection, code, now)

    def link(self, code: str, person: Person, *, now: datetime) -> IdentityLink:
        """Use up `code` and link its account to `person`; an account that is somebody else's stays theirs."""
        with self._database.writing() as connection:
            told = _code(connection, code, now, for_update=True)
            account = (told.provider, told.team_id, told.user_id)
            connection.execute(delete(link_codes).where(_is(link_codes, *account)))
            query = select(identity_links).where(_is(identity_links, *account)).with_for_update()
            existing = connection.execute(query).mappings().first()
            if existing is not None:
                if existing["person"] != person:
                    raise NotAllowedError(
                        f"this {told.provider} account is already linked to another login; "
                        "whoever has that login must unlink it first"
                    )
                return _link(existing)
            made = IdentityLink(
                provider=told.provider,
                team_id=told.team_id,
                user_id=told.user_id,
                person=person,
                linked_at=now,
            )
            connection.execute(insert(identity_links).values(**vars(made)))
            ledger.append(connection, _fact("identity.linked", made, actor=person, now=now))
            return made

    def unlink(
        self, provider: str, team_id: str, user_id: str, *, of: Person | None, actor: Person, now: datetime
    ) -> None:
        """End a link; with `of`, only one of that person's."""
        with self._database.writing() as connection:
            where = _is(identity_links, provider, team_id, user_id)
            found = (
                connection.execute(select(identity_links).where(where).with_for_update()).mappings().first()
            )
            if found is None or (of is not None and found["person"] != of):
                raise InvalidRequestError("there is no such link of yours; list them to see which there are")
            connection.execute(delete(identity_links).where(where))
            ledger.append(connection, _fact("identity.unlinked", _link(found), actor=actor, now=now))

    def links_of(self, person: Person) -> Sequence[IdentityLink]:
        """Return the accounts of one person."""
        query = select(identity_links).where(identity_links.c.person == person)
        order = query.order_by(identity_links.c.provider, identity_links.c.team_id, identity_links.c.user_id)
        with self._database.reading() as connection:
            return [_link(row) for row in connection.execute(order).mappings()]


def _code(connection: Connection, code: str, now: datetime, *, for_update: bool = False) -> LinkCode:
    query = select(link_codes).where(link_codes.c.code_sha256 == _digest(code))
    found = connection.execute(query.with_for_update() if for_update else query).mappings().first()
    if found is None or found["expires_at"] <= now:
        raise InvalidRequestError("this code is not known, was used, or is too old; press the button again")
    return LinkCode(
        provider=found["provider"],
        team_id=found["team_id"],
        user_id=found["user_id"],
        expires_at=found["expires_at"],
    )


def _is(table: Any, provider: str, team_id: str, user_id: str) -> ColumnElement[bool]:
    return and_(table.c.provider == provider, table.c.team_id == team_id, table.c.user_id == user_id)


def _digest(code: str) -> str:
    plain = "".join(char for char in code.upper() if char.isalnum())
    return hashlib.sha256(plain.encode()).hexdigest()


def _link(row: Any) -> IdentityLink:
    return IdentityLink(**{name: row[name] for name in IdentityLink.__dataclass_fields__})


def _fact(kind: str, link: IdentityLink, *, actor: Person, now: datetime) -> EntryDraft:
    account = {"provider": link.provider, "team_id": link.team_id, "user_id": link.user_id}
    return EntryDraft(
        kind=kind, request_id=None, actor=actor, time=now, data={**account, "person": link.person}
    )
