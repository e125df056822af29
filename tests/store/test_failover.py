"""A PostgreSQL that fails over, shuts down or is full is a service that is away, for as long as it lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from airflow_approvals.core.errors import ServiceUnavailableError
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from tests.databases import empty_database
from tests.store.samples import a_fact
from tests.web.site import Site, an_opening, mounted, serving

pytestmark = pytest.mark.services

LIMITED = "approvals_limited"
DRIVERS = ["psycopg2", "psycopg"]  # both are Airflow's


@pytest.fixture
def admin(postgres_url: str) -> Iterator[Engine]:
    """The server itself, past every limit of the database."""
    found = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    yield found
    found.dispose()


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """A database of its own: what is set for it concerns nobody else."""
    with empty_database(postgres_url, "failover") as found:
        yield found


def run(admin: Engine, url: str, statement: str) -> None:
    with admin.connect() as connection:
        connection.execute(text(statement.format(database=make_url(url).database)))


def make_read_only(admin: Engine, url: str) -> None:
    run(admin, url, 'ALTER DATABASE "{database}" SET default_transaction_read_only = on')


def make_writable(admin: Engine, url: str) -> None:
    run(admin, url, 'ALTER DATABASE "{database}" RESET default_transaction_read_only')


def write(store: SqlStore) -> int:
    with store.begin() as transaction:
        return transaction.append(a_fact()).index


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_standby_is_a_service_that_is_away_until_it_takes_changes(
    admin: Engine, url: str, driver: str
) -> None:
    store = create_store(make_url(url).set(drivername=f"postgresql+{driver}").render_as_string(False))
    try:
        create_tables(store.engine)
        first = write(store)
        make_read_only(admin, url)
        store.engine.dispose()
        with pytest.raises(ServiceUnavailableError, match=r"takes no changes now.*nothing was decided"):
            write(store)
        assert store.ledger_size() == first + 1  # to look is possible there
        make_writable(admin, url)
        with pytest.raises(ServiceUnavailableError):  # the connection that looked is one to the standby
            write(store)
        assert write(store) == first + 1
    finally:
        store.close()


def test_the_api_says_503_while_the_database_is_a_standby_and_serves_again_after_it(
    admin: Engine, url: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, url)
    headers = {"Authorization": "Bearer login-alice"}
    with serving(mounted(site.app), site.port), site.person("engineer") as engineer:
        request, _ = engineer.open_request(an_opening(), idempotency_key="1")
        vote = f"{site.base_url}/approvals/api/v1/requests/{request.id}/votes"
        body = {"verdict": "approve", "revision": request.revision}
        make_read_only(admin, url)
        site.store.engine.dispose()  # after it: the service connects whenever it looks for what is due
        refused = httpx.post(vote, json=body, headers=headers, timeout=30)
        assert refused.status_code == 503
        assert refused.json()["type"] == "service-unavailable"
        assert int(refused.headers["retry-after"]) > 0
        make_writable(admin, url)
        site.store.engine.dispose()
        assert httpx.post(vote, json=body, headers=headers, timeout=30).status_code == 200
    site.store.close()


def has_no_connection_left(admin: Engine, url: str) -> None:
    run(admin, url, f"ALTER ROLE {LIMITED} CONNECTION LIMIT 0")  # SQLSTATE 53300


def takes_no_connections(admin: Engine, url: str) -> None:
    run(admin, url, 'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')


AWAY: dict[str, Callable[[Engine, str], None]] = {
    "no connection left": has_no_connection_left,
    "no connections taken": takes_no_connections,
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("send_away", AWAY.values(), ids=AWAY.keys())
def test_a_database_that_lets_nobody_in_is_a_service_that_is_away(
    admin: Engine, url: str, driver: str, send_away: Callable[[Engine, str], None]
) -> None:
    run(admin, url, f"CREATE ROLE {LIMITED} LOGIN")
    store = create_store(
        make_url(url).set(drivername=f"postgresql+{driver}", username=LIMITED).render_as_string(False)
    )
    try:
        send_away(admin, url)
        with pytest.raises(ServiceUnavailableError, match="nothing was decided"):
            write(store)
    finally:
        store.close()
        run(admin, url, f"DROP ROLE {LIMITED}")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_database_that_shuts_down_in_the_middle_is_a_service_that_is_away(
    admin: Engine, url: str, driver: str
) -> None:
    store = create_store(make_url(url).set(drivername=f"postgresql+{driver}").render_as_string(False))
    end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"

    def write_half() -> None:
        with store.begin() as transaction:
            transaction.append(a_fact())
            run(admin, url, end_all)  # SQLSTATE 57P01
            transaction.append(a_fact())

    try:
        create_tables(store.engine)
        with pytest.raises(ServiceUnavailableError, match="nothing was decided"):
            write_half()
        assert write(store) == 0
    finally:
        store.close()
