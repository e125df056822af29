"""DAG code against seals and gates: each attack is stopped, or shown by a command that is named here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import httpx
import jwt
import pytest

from airflow_approvals.client.tokens import worker_tokens
from tests.enforcement.site import PASSWORD, TOKEN, Cluster, seal_of, stored

pytestmark = pytest.mark.airflow


def denials(cluster: Cluster, what: str) -> list[str]:
    return [
        entry["data"]["because"]
        for entry in cluster.entries("attempt.refused")
        if entry["data"]["attempt"] == what
    ]


def everything_left(cluster: Cluster) -> str:
    return "\n".join(file.read_text() for file in (cluster.home / "left").iterdir())


def test_no_attack_gets_hold_of_the_password(cluster: Cluster) -> None:
    assert PASSWORD not in everything_left(cluster)


@pytest.mark.parametrize(
    ("dag_id", "name"),
    [
        ("reads", "prod_api"),
        ("calls_execute", "prod_db"),
        ("in_a_template", "prod_api"),
        ("without_hooks", "prod_db"),
    ],
)
def test_a_task_without_an_approval_is_denied_and_that_is_on_record(
    cluster: Cluster, dag_id: str, name: str
) -> None:
    assert any(f"worker:{dag_id}/" in because for because in denials(cluster, f"read connection {name}"))


def test_a_connection_that_is_read_in_a_task_is_refused_in_every_way(cluster: Cluster) -> None:
    for attempt in ("connection", "hook", "variable"):
        assert not cluster.left(f"task_{attempt}")
        assert cluster.left(f"task_{attempt}_error")


def test_the_dag_processor_sees_the_seal(cluster: Cluster) -> None:
    told = cluster.left("parse_connection").splitlines()
    assert told[0] == "sealed-by-airflow-approvals.invalid"
    assert seal_of(cluster.left("parse_variable"))["name"] == "prod_token"


def test_a_trigger_sees_the_seal(cluster: Cluster) -> None:
    assert "sealed-by-airflow-approvals.invalid" in cluster.left("trigger_connection")
    assert TOKEN not in cluster.left("trigger_variable")


def test_execute_called_by_hand_writes_nothing(cluster: Cluster) -> None:
    assert cluster.states("calls_execute") == {"by_hand": "failed"}
    assert "by hand" not in cluster.rows()


def test_a_raw_client_gets_no_way_to_the_destination(cluster: Cluster) -> None:
    assert cluster.states("reads")["by_raw_client"] == "failed"
    assert "raw client" not in cluster.rows()
    refused = denials(cluster, "read connection prod_db")
    assert any("worker:reads/reads/by_raw_client" in because for because in refused), refused


def test_a_template_cannot_read_what_is_sealed(cluster: Cluster) -> None:
    assert cluster.states("in_a_template") == {"echo": "failed"}


def test_a_task_cannot_overwrite_a_protected_variable(cluster: Cluster) -> None:
    assert denials(cluster, "change variable prod_token")
    assert cluster.command("doctor", "--url", cluster.site.base_url).stdout.count(
        "all of them open as recorded"
    )


def test_a_dag_file_without_hooks_gets_no_secret_and_policy_explain_shows_it(cluster: Cluster) -> None:
    assert cluster.states("without_hooks")["insert"] == "failed"
    assert "without hooks" not in cluster.rows()
    told = cluster.command("policy", "explain", "without_hooks")
    assert told.returncode == 1
    assert told.stdout.count("gate missing") == 2


def test_what_ran_without_its_gate_is_shown_by_doctor(cluster: Cluster) -> None:
    assert "without a gate" in cluster.rows()  # it needs no secret: nothing could stop it
    told = json.loads(cluster.command("doctor", "--url", cluster.site.base_url, "-o", "json").stdout)
    gates = [check["text"] for check in told["checks"] if check["subject"] == "gates"]
    assert any("without_hooks/without_hooks/harmless ran without its gate" in text for text in gates), gates


def test_a_dag_file_cannot_point_the_policy_elsewhere(cluster: Cluster) -> None:
    (request,) = cluster.site.requests_of("without_file")
    assert request.policy == "any-task"


def test_marking_a_gated_task_successful_writes_nothing_and_is_shown_by_doctor(cluster: Cluster) -> None:
    assert "marked" not in cluster.rows()
    told = cluster.command("doctor", "--url", cluster.site.base_url).stdout
    assert "marked/marked/insert" in told


def test_an_approval_under_another_policy_lends_nothing(cluster: Cluster) -> None:
    assert cluster.states("wrong_policy") == {"insert": "failed"}
    assert any(
        "under policy outbound only" in because for because in denials(cluster, "read connection vault_db")
    )


def test_a_loan_is_on_record_with_its_request(cluster: Cluster) -> None:
    request = cluster.site.requests_of("stock")[-1]
    loans = [entry for entry in cluster.entries("secret.lent") if entry["request_id"] == request.id]
    assert [loan["data"]["name"] for loan in loans] == ["prod_db"]


def test_what_is_stored_holds_no_secret(cluster: Cluster) -> None:
    exported = cluster.python(
        "from airflow.models import Connection; from airflow.utils.session import create_session\n"
        "with create_session() as session:\n"
        "    for one in session.query(Connection).filter(Connection.conn_id == 'prod_api'):\n"
        "        print(one.conn_id, one.conn_type, one.host, one.login, one.password, one.extra)"
    )
    assert PASSWORD not in exported
    assert TOKEN not in exported
    assert "etl" not in exported
    assert stored(cluster, "variable", '"key"', "prod_token")["is_encrypted"]


# --- tokens for another purpose -----------------------------------------------------------------------------


def read_with(cluster: Cluster, token: str) -> httpx.Response:
    url = f"{cluster.site.base_url}/execution/connections/prod_api"
    return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def execution_token(cluster: Cluster, ti_id: str) -> str:
    """Return what Airflow gives a worker for this task instance."""
    script = (
        "from airflow.api_fastapi.execution_api.app import _jwt_generator\n"
        f"print(_jwt_generator().generate({{'sub': {ti_id!r}, 'scope': 'execution'}}))"
    )
    return cluster.python(script).splitlines()[-1]


def our_worker_token(ti_id: str) -> str:
    return worker_tokens(ti_id, os.environ["AIRFLOW__API__SECRET_KEY"])()


def vote_with(cluster: Cluster, token: str) -> httpx.Response:
    (request,) = cluster.site.requests_of("marked")
    url = f"{cluster.site.base_url}/approvals/api/v1/requests/{request.id}/votes"
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(url, json={"verdict": "approve", "revision": 1}, headers=headers, timeout=60)


def test_a_worker_token_of_ours_opens_nothing_at_airflow(cluster: Cluster) -> None:
    refused = read_with(cluster, our_worker_token(cluster.task_instance("stock", "insert")))
    assert refused.status_code in (401, 403)


def test_an_execution_token_of_a_forger_opens_nothing(cluster: Cluster) -> None:
    ti_id = cluster.task_instance("stock", "insert")
    refused = read_with(cluster, jwt.encode({"sub": ti_id, "scope": "execution"}, "x" * 64))
    assert refused.status_code in (401, 403)


def test_the_token_of_a_task_that_has_ended_opens_nothing_any_more(cluster: Cluster) -> None:
    ti_id = cluster.task_instance("plain", "gated_one", map_index=0)
    refused = read_with(cluster, execution_token(cluster, ti_id))
    assert refused.status_code == 403
    assert "the loan ends with the task" in refused.text


@pytest.mark.parametrize("token", [our_worker_token, None], ids=["ours", "Airflow's"])
def test_no_workers_token_can_vote(cluster: Cluster, token: Callable[[str], str] | None) -> None:
    ti_id = cluster.task_instance("plain", "gated_one", map_index=0)
    refused = vote_with(cluster, token(ti_id) if token else execution_token(cluster, ti_id))
    assert refused.status_code in (401, 403)
    (request,) = cluster.site.requests_of("marked")
    assert not request.votes
