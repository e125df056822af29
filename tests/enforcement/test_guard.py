"""The guard in front of an execution API: who gets a secret, who does not, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import jwt
import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient

from airflow_approvals.core.errors import NotLentError
from airflow_approvals.core.guard_probe import GUARD_HEADER, PROBE
from airflow_approvals.core.model import Action, ApprovalRequest, Channel, Evidence, Person, Verdict
from airflow_approvals.core.sealed import Sealed, seal
from airflow_approvals.enforcement.guard import SecretGuard
from airflow_approvals.enforcement.keyring import Keyring
from airflow_approvals.enforcement.sealing import HOST, PASSWORD, Vault
from airflow_approvals.service import Opening
from airflow_approvals.web.backend import Backend
from tests.web.site import Site, utc_now

JWT_SECRET = "the execution API's own secret, which is long enough"
KEYRING = Keyring(current="k1", keys={"k1": bytes(range(32))})
SECRET_PASSWORD = "the production password"
POLICY = """
version: 1
groups: {data-stewards: {users: [alice]}}
policies:
  - name: outbound
    match: {action: [export]}
    require: [{group: data-stewards}]
  - name: any-task
    match: {action: [write]}
    require: [{group: data-stewards}]
protected_connections: ["prod_*", {name: vault_db, policies: [outbound]}]
protected_variables: ["prod_*"]
"""


def sealed(kind: Any, name: str, content: dict[str, Any]) -> Sealed:
    return seal(content, kind=kind, name=name, keyid="k1", key=KEYRING.key, nonce=bytes(12))


def connection(name: str, **fields: Any) -> dict[str, Any]:
    plain: dict[str, Any] = dict.fromkeys(("host", "schema", "login", "password", "port", "extra"))
    return {"conn_id": name, "conn_type": "postgres", **plain, **fields}


CONTENT = {
    "conn_type": "postgres",
    "host": "db.example.com",
    "login": "etl",
    "password": SECRET_PASSWORD,
    "schema": "sales",
    "port": 5432,
    "extra": '{"sslmode": "require"}',
}


def check(authorization: str | None) -> None:
    if authorization is None:
        raise HTTPException(401, "Missing auth token")
    try:
        jwt.decode(authorization.partition(" ")[2], JWT_SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(403, "Invalid auth token") from None


class FakeAirflow:
    """An execution API with tokens of its own, and whatever stands in the metadata database."""

    def __init__(self) -> None:
        def stored(name: str) -> dict[str, Any]:
            extra = sealed("connection", name, CONTENT).text()
            return connection(name, host=HOST, login="sealed", password=PASSWORD, extra=extra)

        self.connections = {
            "prod_db": stored("prod_db"),
            "vault_db": stored("vault_db"),
            "plain_but_sealed": stored("plain_but_sealed"),
            "prod_open": connection("prod_open", password=SECRET_PASSWORD),
            "PROD_OPEN": connection("PROD_OPEN", password=SECRET_PASSWORD),
            "dev_db": connection("dev_db", password="of no worth"),
            "moved": {**stored("prod_db"), "conn_id": "moved"},
        }
        self.variables = {"prod_token": sealed("variable", "prod_token", {"value": "tok"}).text(), "dev": "x"}
        self.accepted: list[str | None] = []
        self.app = FastAPI()
        self.app.mount("/execution", self._execution())

        @self.app.get("/stream")
        async def _stream() -> StreamingResponse:
            async def parts() -> AsyncIterator[bytes]:
                for number in range(3):
                    yield b"%d" % number

            return StreamingResponse(parts())

    def _execution(self) -> FastAPI:
        api = FastAPI()

        @api.get("/connections/{name}")
        def _connection(
            name: str,
            authorization: Annotated[str | None, Header()] = None,
            accept_encoding: Annotated[str | None, Header()] = None,
        ) -> Any:
            check(authorization)
            self.accepted.append(accept_encoding)
            if name not in self.connections:
                raise HTTPException(404)
            return JSONResponse(self.connections[name])

        @api.get("/variables/keys")
        def _keys(authorization: Annotated[str | None, Header()] = None) -> Any:
            check(authorization)
            return {"keys": sorted(self.variables)}

        @api.get("/variables/{name:path}")
        def _variable(name: str, authorization: Annotated[str | None, Header()] = None) -> Any:
            check(authorization)
            if name not in self.variables:
                raise HTTPException(404)
            return {"key": name, "value": self.variables[name]}

        @api.put("/variables/{name:path}")
        def _put(
            name: str, body: dict[str, str], authorization: Annotated[str | None, Header()] = None
        ) -> Any:
            check(authorization)
            self.variables[name] = body["value"]
            return {}

        @api.delete("/variables/{name:path}")
        def _delete(name: str, authorization: Annotated[str | None, Header()] = None) -> Any:
            check(authorization)
            del self.variables[name]
            return {}

        return api


class Guarded:
    """The guard around it, and tasks that come to it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.run_id = str(uuid4())
        self.begin = len(site.ledger())
        self.airflow = FakeAirflow()
        self.vault: Callable[[], Vault] = lambda: Vault(KEYRING)
        backend = Backend(lambda: site.service, site.settings)
        guard = SecretGuard(self.airflow.app, backend=backend, open_vault=lambda: self.vault())
        self.client = TestClient(guard, raise_server_exceptions=False)

    def task(self, task_id: str = "publish") -> str:
        return self.site.add_task(run_id=self.run_id, task_id=task_id)

    def token(self, ti_id: str, secret: str = JWT_SECRET) -> dict[str, str]:
        return {"Authorization": "Bearer " + jwt.encode({"sub": ti_id, "scope": "execution"}, secret)}

    def read(self, ti_id: str, name: str = "prod_db", kind: str = "connections") -> Any:
        return self.client.get(f"/execution/{kind}/{name}", headers=self.token(ti_id))

    def approved(self, ti_id: str, *names: str, variables: tuple[str, ...] = ()) -> ApprovalRequest:
        """Let this task ask for these names, and alice approve."""
        parameters = {"task": {"connections": list(names), "variables": list(variables)}}
        opening = Opening(action=Action(kind="write", parameters=parameters), evidence=Evidence())
        service, now = self.site.service, utc_now()
        request = service.open_for_task(ti_id, opening, request_id=str(uuid4()), now=now).request
        return service.cast_vote(
            Person("alice"), request.id, Verdict.APPROVE, reason="", revision=1, channel=Channel.API, now=now
        )

    def redeemed(self, ti_id: str, *names: str, variables: tuple[str, ...] = ()) -> ApprovalRequest:
        request = self.approved(ti_id, *names, variables=variables)
        return self.site.service.redeem(ti_id, request.id, digest=request.action_digest, now=utc_now())

    def refusals(self) -> list[dict[str, Any]]:
        return [entry["data"] for entry in self.entries() if entry["kind"] == "attempt.refused"]

    def entries(self) -> list[dict[str, Any]]:
        """Return what came into the ledger since this test began."""
        return self.site.ledger()[self.begin :]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    site = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    site.policy_file.write_text(POLICY)
    yield site
    site.store.close()


@pytest.fixture
def guarded(shared: Site) -> Guarded:
    """The guard, and a DAG run of its own, before one site for all tests."""
    return Guarded(shared)


def test_the_approved_task_gets_the_connection_as_it_was_before_it_was_sealed(guarded: Guarded) -> None:
    task = guarded.task()
    guarded.redeemed(task, "prod_db")
    answer = guarded.read(task)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {"conn_id": "prod_db", **CONTENT}
    assert guarded.read(task).json() == answer.json()
    lent = [entry for entry in guarded.entries() if entry["kind"] == "secret.lent"]
    assert [entry["data"]["ti_id"] for entry in lent] == [task]  # once, however often it is read


def test_the_approved_task_gets_the_variable(guarded: Guarded) -> None:
    task = guarded.task()
    guarded.redeemed(task, variables=("prod_token",))
    assert guarded.read(task, "prod_token", "variables").json() == {"key": "prod_token", "value": "tok"}


def _none(guarded: Guarded) -> str:
    return guarded.task()


def _not_redeemed(guarded: Guarded) -> str:
    task = guarded.task()
    guarded.approved(task, "prod_db")
    return task


def _of_another_task(guarded: Guarded) -> str:
    guarded.redeemed(guarded.task(), "prod_db")
    return guarded.task("other")


def _of_an_earlier_try(guarded: Guarded) -> str:
    guarded.redeemed(guarded.task(), "prod_db")
    return guarded.task()


def _for_another_name(guarded: Guarded) -> str:
    task = guarded.task()
    guarded.redeemed(task, "prod_d", "prod_db2", "PROD_DB", variables=("prod_db",))
    return task


def _reported(guarded: Guarded) -> str:
    task = guarded.task()
    request = guarded.redeemed(task, "prod_db")
    guarded.site.service.report_outcome(
        task, request.id, published=True, digest=None, detail="", now=utc_now()
    )
    return task


def _in_state(state: str) -> Callable[[Guarded], str]:
    def prepare(guarded: Guarded) -> str:
        task = guarded.task()
        guarded.redeemed(task, "prod_db")
        guarded.site.set_task_state(task, state)
        return task

    return prepare


WITHOUT_A_LOAN: dict[str, Callable[[Guarded], str]] = {
    "no approval": _none,
    "not redeemed": _not_redeemed,
    "approval of another task": _of_another_task,
    "approval of an earlier try": _of_an_earlier_try,
    "approval that names others": _for_another_name,
    "outcome reported": _reported,
    "task deferred": _in_state("deferred"),
    "task ended": _in_state("success"),
    "task failed": _in_state("failed"),
    "no such task": lambda guarded: "00000000-0000-0000-0000-000000000000",
    "no id at all": lambda guarded: "",
}


@pytest.mark.parametrize("prepare", WITHOUT_A_LOAN.values(), ids=WITHOUT_A_LOAN.keys())
@pytest.mark.parametrize("name", ["prod_db", "prod_open", "PROD_OPEN", "plain_but_sealed"])
def test_nobody_else_gets_it_and_the_denial_is_on_record(
    guarded: Guarded, prepare: Callable[[Guarded], str], name: str
) -> None:
    task = prepare(guarded)
    before = len(guarded.refusals())
    answer = guarded.read(task, name)
    assert answer.status_code == 403
    assert SECRET_PASSWORD not in answer.text
    assert answer.json()["detail"]["connection"] == name
    assert [each["attempt"] for each in guarded.refusals()[before:]] == [f"read connection {name}"]


def test_an_approval_under_a_policy_that_may_not_lend_it_lends_nothing(guarded: Guarded) -> None:
    task = guarded.task()
    guarded.redeemed(task, "vault_db")
    assert guarded.read(task, "vault_db").status_code == 403
    assert "under policy outbound only" in guarded.refusals()[-1]["because"]


def test_a_token_of_another_secret_is_airflows_to_refuse(guarded: Guarded) -> None:
    task = guarded.task()
    guarded.redeemed(task, "prod_db")
    answer = guarded.client.get("/execution/connections/prod_db", headers=guarded.token(task, "x" * 32))
    assert (answer.status_code, answer.json()) == (403, {"detail": "Invalid auth token"})
    assert not guarded.refusals()


def test_a_second_token_in_one_call_speaks_for_nobody(guarded: Guarded) -> None:
    approved, attacker = guarded.task(), guarded.task("other")
    guarded.redeemed(approved, "prod_db")
    forged = guarded.token(approved, "not the secret of this server at all")
    headers = [*guarded.token(attacker).items(), *forged.items()]
    answer = guarded.client.get("/execution/connections/prod_db", headers=headers)
    assert answer.status_code == 403
    assert SECRET_PASSWORD not in answer.text


def test_a_seal_moved_to_another_name_does_not_open(guarded: Guarded) -> None:
    task = guarded.task()
    guarded.redeemed(task, "moved")
    assert guarded.read(task, "moved").status_code == 403
    assert guarded.refusals()[-1]["type"] == "seal-broken"


def test_a_fault_gives_nothing_away(guarded: Guarded) -> None:
    def broken() -> Vault:
        raise RuntimeError("a fault of our own")

    task = guarded.task()
    guarded.redeemed(task, "prod_db")
    guarded.vault = broken
    answer = guarded.read(task)
    assert (answer.status_code, SECRET_PASSWORD in answer.text) == (503, False)


@pytest.mark.parametrize("method", ["put", "delete"])
def test_a_task_cannot_change_what_is_protected(guarded: Guarded, method: str) -> None:
    task = guarded.task()
    guarded.redeemed(task, variables=("prod_token",))
    before = dict(guarded.airflow.variables)
    body = {"json": {"value": "mine"}} if method == "put" else {}
    for name in ("prod_token", "prod_new"):
        path = f"/execution/variables/{name}"
        answer = guarded.client.request(method.upper(), path, headers=guarded.token(task), **body)  # type: ignore[arg-type]
        assert answer.status_code == 403
        assert guarded.refusals()[-1]["attempt"] == f"change variable {name}"
    assert guarded.airflow.variables == before


def test_other_variables_are_changed_as_ever(guarded: Guarded) -> None:
    task = guarded.task()
    headers = guarded.token(task)
    assert guarded.client.put("/execution/variables/dev", headers=headers, json={"value": "y"}).is_success
    assert guarded.airflow.variables["dev"] == "y"
    assert guarded.client.delete("/execution/variables/dev", headers=headers).is_success
    assert "dev" not in guarded.airflow.variables


def test_who_has_no_token_leaves_no_trace_in_the_ledger(guarded: Guarded) -> None:
    path = "/execution/variables/prod_token"
    assert guarded.client.put(path, json={"value": "mine"}).status_code == 401
    assert guarded.client.delete(path, headers=guarded.token("x", "y" * 32)).status_code == 403
    assert not guarded.refusals()


def test_what_is_not_protected_passes_byte_for_byte(guarded: Guarded) -> None:
    task = guarded.task()
    plain = TestClient(guarded.airflow.app)
    for path in ("connections/dev_db", "connections/unknown", "variables/dev", "variables/keys"):
        url = f"/execution/{path}"
        ours = guarded.client.get(url, headers=guarded.token(task))
        theirs = plain.get(url, headers=guarded.token(task))
        assert (ours.status_code, ours.content, ours.headers) == (
            theirs.status_code,
            theirs.content,
            theirs.headers,
        )
    assert guarded.client.get("/stream").content == b"012"
    assert not guarded.refusals()


def test_streams_are_passed_on_as_they_come(guarded: Guarded) -> None:
    with guarded.client.stream("GET", "/stream") as answer:
        assert list(answer.iter_raw()) == [b"0", b"1", b"2"]


def test_airflow_is_asked_for_an_answer_that_can_be_looked_into(guarded: Guarded) -> None:
    guarded.read(guarded.task(), "dev_db")
    assert guarded.airflow.accepted == [None]


def test_doctor_can_see_that_the_guard_is_there(guarded: Guarded) -> None:
    answer = guarded.client.get(f"/execution{PROBE}")
    assert (answer.status_code, answer.headers[GUARD_HEADER]) == (401, "1")


def test_without_any_policy_file_what_is_sealed_stays_sealed_and_the_rest_goes_on(tmp_path: Path) -> None:
    fresh = Guarded(Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}"))
    fresh.site.policy_file.write_text("no policy")
    task = fresh.task()
    assert fresh.read(task, "dev_db").status_code == 200
    assert fresh.read(task, "prod_db").status_code == 403
    fresh.site.store.close()


def test_the_refusal_says_what_to_do(guarded: Guarded) -> None:
    told = guarded.read(guarded.task()).json()["detail"]
    assert told["reason"] == NotLentError.type
    assert "gate the task" in told["message"]
    assert json.dumps(told)
