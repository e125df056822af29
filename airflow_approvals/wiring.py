"""Where everything is joined: which store, which key, which policy file, which users."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_approvals.core.errors import ApprovalsError, ConfigurationError, PolicyError
from airflow_approvals.core.policy import PolicyFile, parse_policy_file
from airflow_approvals.ports import Store
from airflow_approvals.service import Service
from airflow_approvals.settings import Settings, read_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from airflow_approvals.channels.joined import Channels
    from airflow_approvals.lineage.spool import Lineage
    from airflow_approvals.store.lineage import SqlLineageSpool

MAX_LETTERS = 100
MAX_POLICY_BYTES = 4 << 20

log = logging.getLogger(__name__)


class FilePolicySource:
    """The policy file, read again when it has changed; a broken one never replaces a good one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._text: str | None = None
        self._current: PolicyFile | None = None
        self._problem: str | None = None

    def current(self) -> PolicyFile:
        """Return the newest valid policy file; raise `PolicyError` if there never was one."""
        with self._lock:
            self._refresh()
            if self._current is None:
                raise PolicyError(
                    self._problem
                    or f"[approvals] policy_file: {self._path} was not read; nothing can be approved"
                )
            return self._current

    def problem(self) -> str | None:
        """Return why the file on disk is not the one in force, if so."""
        with self._lock:
            self._refresh()
            return self._problem

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            text = self._read(status.st_size)
        except (OSError, UnicodeDecodeError) as error:
            self._seen = None
            self._reject(
                f"[approvals] policy_file: {self._path} cannot be read ({type(error).__name__}); "
                "put it there, or correct the option"
            )
            return
        self._seen = seen
        if text == self._text and self._problem is None:
            return
        self._text = text
        try:
            self._current = parse_policy_file(text, name=self._path.name)
        except PolicyError as error:
            self._reject(str(error))
            return
        self._problem = None
        log.info("policy file %s is in force, digest %s", self._path, self._current.digest)

    def _read(self, size: int) -> str:
        if size > MAX_POLICY_BYTES:
            raise OSError(f"larger than {MAX_POLICY_BYTES} bytes")
        return self._path.read_text(encoding="utf-8")

    def _reject(self, problem: str) -> None:
        if problem != self._problem:
            kept = "the one before stays in force" if self._current else "there is none in force"
            log.error("%s (%s)", problem, kept)
        self._problem = problem


def build_service(settings: Settings) -> Service:
    """Return the service on Airflow's metadata database; raise `ConfigurationError` if it cannot be built."""
    from airflow_approvals.channels.slack.groups import LinkedGroups
    from airflow_approvals.channels.slack.workspace import AirflowWorkspace, Workspaces
    from airflow_approvals.keys import load_signer
    from airflow_approvals.store.engine import open_engine
    from airflow_approvals.store.identities import SqlIdentities
    from airflow_approvals.store.origins import AirflowOrigins
    from airflow_approvals.store.schema import check_schema
    from airflow_approvals.store.sql import SqlStore

    url, connect_args = _metadata_database()
    engine = open_engine(url, connect_args)
    try:
        check_schema(engine)
        signer = load_signer(
            settings.signing_key,
            public_key_file=Path(settings.public_key_file) if settings.public_key_file else None,
            home=settings.home,
        )
    except ApprovalsError:
        engine.dispose()  # it is tried again with the next call
        raise
    return Service(
        store=SqlStore(engine),
        origins=AirflowOrigins(engine),
        policies=LinkedGroups(
            FilePolicySource(Path(settings.policy_file)),
            SqlIdentities(engine),
            Workspaces(AirflowWorkspace),
            clock=lambda: datetime.now(UTC),
        ),
        signer=signer,
    )


def build_channels(service: Service, settings: Settings) -> Channels:
    """Return the channels on the store of `service`; Slack is reached through Airflow's connections."""
    from airflow_approvals.channels.joined import Channels
    from airflow_approvals.channels.one_way_kinds import one_way_senders
    from airflow_approvals.channels.outbox import Deliveries, Sender
    from airflow_approvals.channels.slack.answers import Answers
    from airflow_approvals.channels.slack.groups import LinkedGroups
    from airflow_approvals.channels.slack.send import KIND, SlackSender
    from airflow_approvals.channels.slack.workspace import AirflowWorkspace, Workspaces
    from airflow_approvals.store.identities import SqlIdentities
    from airflow_approvals.store.outbox import SqlOutbox
    from airflow_approvals.store.sql import SqlStore

    if not isinstance(service.store, SqlStore):
        raise ConfigurationError(
            "channels need the SQL store: links and deliveries are kept beside the ledger"
        )
    outbox, identities = SqlOutbox(service.store.engine), SqlIdentities(service.store.engine)
    groups = service.policies if isinstance(service.policies, LinkedGroups) else None
    workspaces = groups.workspaces if groups is not None else Workspaces(AirflowWorkspace)
    slack = SlackSender(service, workspaces, base_url=settings.base_url)
    senders: dict[str, Sender] = {KIND: slack, **one_way_senders(service, base_url=settings.base_url)}
    return Channels(
        deliveries=Deliveries(service, outbox, senders),
        answers=Answers(service=service, outbox=outbox, identities=identities, base_url=settings.base_url),
        identities=identities,
        workspaces=workspaces,
        groups=groups,
        kinds=frozenset(senders),
    )


def build_lineage(service: Service, settings: Settings) -> Lineage | None:
    """Return what tells lineage, on the store of `service`; None while OpenLineage is off.

    Raises `ConfigurationError` for a transport that leads nowhere.
    """
    from airflow_approvals.lineage.approval import Site
    from airflow_approvals.lineage.backend import TransportBackend, find_transport, job_namespace
    from airflow_approvals.lineage.kept import FOLDER, KeptEvents
    from airflow_approvals.lineage.spool import Lineage
    from airflow_approvals.lineage.tags import find_marquez

    transport = find_transport()
    if transport is None:
        return None

    return Lineage(
        build_lineage_spool(service),
        TransportBackend(transport, find_marquez()),
        service,
        Site(namespace=job_namespace(), base_url=settings.base_url),
        KeptEvents(settings.home / FOLDER),
    )


def build_lineage_spool(service: Service) -> SqlLineageSpool:
    """Return where lineage events are kept, beside the ledger of `service`."""
    from airflow_approvals.store.lineage import SqlLineageSpool
    from airflow_approvals.store.sql import SqlStore

    if not isinstance(service.store, SqlStore):
        raise ConfigurationError("lineage needs the SQL store: its events are kept beside the ledger")
    return SqlLineageSpool(service.store.engine)


@contextmanager
def open_store() -> Iterator[Store]:
    """Give the store alone, to look into: no signing key is needed, and none is made."""
    from airflow_approvals.store.engine import open_engine
    from airflow_approvals.store.sql import SqlStore

    url, connect_args = _metadata_database()
    engine = open_engine(url, connect_args)
    try:
        yield SqlStore(engine)
    finally:
        engine.dispose()


def check_database() -> None:
    """Raise `ConfigurationError` unless the metadata database has our tables, at our version, guarded."""
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_approvals.store.engine import open_engine
    from airflow_approvals.store.schema import check_schema

    url, connect_args = _metadata_database()
    engine = open_engine(url, connect_args)
    try:
        check_schema(engine)
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"metadata database: not readable ({type(error).__name__}); check [database] sql_alchemy_conn"
        ) from error
    finally:
        engine.dispose()


def check_witness(settings: Settings) -> str:
    """Return in words how far the witness speaks for the ledger; raise where it speaks against it."""
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_approvals import witness
    from airflow_approvals.store.sql import create_store

    store = create_store(*_metadata_database())
    try:
        told = (
            f"{address}: {witness.check_witness(witness.open_witness(address), store)}"
            if witness.is_folder(address)
            else f"{address}: told there; hold its lines against the ledger with `ledger verify --witness`"
            for address in witness.addresses_in(settings.witness)
        )
        return "; ".join(told)
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"metadata database: the ledger cannot be read ({type(error).__name__}); run `airflow db migrate`"
        ) from error
    finally:
        store.close()


def check_deliveries() -> None:
    """Raise `ConfigurationError` when messages to people were given up; it names the newest and why."""
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_approvals.store.engine import open_engine
    from airflow_approvals.store.outbox import SqlOutbox

    url, connect_args = _metadata_database()
    engine = open_engine(url, connect_args)
    try:
        letters = SqlOutbox(engine).dead_letters(limit=MAX_LETTERS)
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"metadata database: the outbox cannot be read ({type(error).__name__}); run `airflow db migrate`"
        ) from error
    finally:
        engine.dispose()
    if letters:
        count = f"{len(letters)}{' or more' if len(letters) == MAX_LETTERS else ''}"
        raise ConfigurationError(
            f"messages given up: {count}; the newest, to channel {letters[0].channel}: {letters[0].problem}; "
            "mend the channel, then send again from the request's page; a change of the request does it too"
        )


def check_lineage() -> str:
    """Return how lineage stands; raise `ConfigurationError` when its backend has not taken what was told."""
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_approvals.lineage.backend import find_transport
    from airflow_approvals.lineage.kept import FOLDER, KeptEvents
    from airflow_approvals.store.engine import open_engine
    from airflow_approvals.store.lineage import SqlLineageSpool

    is_on = find_transport() is not None
    url, connect_args = _metadata_database()
    engine = open_engine(url, connect_args)
    try:
        spool = SqlLineageSpool(engine)
        problems, counts = spool.problems(limit=1), spool.counts()
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"metadata database: lineage cannot be read ({type(error).__name__}); run `airflow db migrate`"
        ) from error
    finally:
        engine.dispose()
    if problems:
        run_id, key, problem = problems[0]
        raise ConfigurationError(
            f"lineage events not taken: {counts.get('refused', 0)} refused, {counts.get('aside', 0)} to be "
            f"tried again; the newest, {key} of run {run_id}: {problem}; see the backend's log"
        )
    if not is_on:
        return "off: no [openlineage] transport"
    kept = KeptEvents(read_settings().home / FOLDER).count()
    return f"on, {counts.get('queued', 0)} events on their way, {kept} kept here until the service takes them"


def check_signing_key(settings: Settings) -> str:
    """Return the id of the key that would sign, and make none; raise `ConfigurationError` without one."""
    from airflow_approvals.keys import KEY_FILE, load_signer

    if not settings.signing_key and not (settings.home / KEY_FILE).exists():
        raise ConfigurationError(
            f"[approvals] signing_key: there is no key at {settings.home / KEY_FILE} yet; "
            "the API server makes one when it first starts"
        )
    public = Path(settings.public_key_file) if settings.public_key_file else None
    return load_signer(settings.signing_key, public_key_file=public, home=settings.home).keyid


def build_app() -> FastAPI:
    """Return the app that Airflow's API server mounts, with Airflow's own users."""
    from airflow_approvals.web.airflow_users import AirflowUsers
    from airflow_approvals.web.app import create_app
    from airflow_approvals.web.lineage import LineageParts

    settings = read_settings()
    return create_app(
        lambda: build_service(settings),
        settings,
        AirflowUsers(),
        lambda service: build_channels(service, settings),
        LineageParts(build=lambda service: build_lineage(service, settings), spool_of=build_lineage_spool),
    )


def _metadata_database() -> tuple[str, dict[str, Any]]:
    """Return URL and connect arguments of Airflow's metadata database, as Airflow itself reads them."""
    from airflow.configuration import conf

    connect_args: dict[str, Any] = {}
    if conf.has_option("database", "sql_alchemy_connect_args"):
        connect_args = conf.getimport("database", "sql_alchemy_connect_args") or {}
    return str(conf.get("database", "sql_alchemy_conn")), connect_args
