"""Standing approvals, break glass, evidence and the witness as people use them: on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.core.model import ApprovalRequest
from tests.cli.test_evidence import ALONE
from tests.evidence.conftest import an_export
from tests.web.site import LOADED, POLICY, Site, mounted, serving

STANDING = """
    standing: {max_days: 30, void_on: [schema, residual_pii, "rows > 1.2x"]}
    break_glass: {group: oncall}
"""
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    found = Site(folder, f"sqlite:///{folder / 'airflow.db'}")
    text = POLICY.replace("  admins:", "  oncall: {users: [dana]}\n  admins:").rstrip()
    found.policy_file.write_text(text + STANDING, encoding="utf-8")
    with serving(mounted(found.app), found.port):
        yield found
    found.store.close()


@pytest.fixture
def say(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    monkeypatch.setenv("APPROVALS_URL", site.base_url)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words: str, user: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*words, "--token", f"login-{user}"])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def asked(site: Site, name: str, **more: Any) -> tuple[str, ApprovalRequest]:
    ti_id = site.add_task(run_id=f"manual__{uuid4()}", **more)
    with site.worker(ti_id) as worker:
        return ti_id, worker.open_request(an_export(name))[0]


def published(site: Site, ti_id: str, request: ApprovalRequest) -> None:
    with site.worker(ti_id) as worker:
        worker.redeem(request.id, ti_id=ti_id, digest=request.action_digest)
        digest = request.evidence.datasets[0].sha256
        worker.report_outcome(request.id, ti_id=ti_id, published=True, digest=digest)


def test_an_approval_stands_once_others_have_said_so(site: Site, say: Say) -> None:
    ti_id, request = asked(site, "nightly")
    assert say("standing", request.id, "--days", "5", user="bob")[0] == Exit.USAGE  # not approved yet
    say("approve", request.id, "--yes", user="alice")
    published(site, ti_id, request)
    assert say("standing", request.id, "--days", "31", user="bob")[0] == Exit.USAGE
    code, out, _ = say("standing", request.id, "--days", "5", "-o", "json", user="bob")
    assert code == Exit.OK
    standing = json.loads(out)
    assert say("approve", standing["id"], "--yes", user="bob")[0] == Exit.NOT_ALLOWED
    assert say("approve", standing["id"], "--yes", user="alice")[0] == Exit.OK
    again_id, again = asked(site, "nightly")
    assert again.granted is not None
    assert again.granted.standing_id == standing["id"]
    published(site, again_id, again)
    code, out, _ = say("list", "--standing", "--status", "approved", "-o", "json", user="alice")
    assert [each["id"] for each in json.loads(out)["requests"]] == [standing["id"]]
    assert "it stands for 5 days" in say("show", standing["id"], user="alice")[1]
    assert "standing approval" in say("show", again.id, user="alice")[1]


def test_the_glass_is_broken_by_the_few_and_with_a_reason(site: Site, say: Say) -> None:
    _, request = asked(site, "urgent")
    assert say("break-glass", request.id, "--yes", "-r", "x", user="alice")[0] == Exit.NOT_ALLOWED
    code, out, _ = say("break-glass", request.id, "--yes", "-r", "the partner is down", user="dana")
    assert code == Exit.OK
    assert "the glass is broken" in out
    assert "break glass by dana: the partner is down" in say("show", request.id, user="dana")[1]
    assert "nobody yet" in say("show", request.id, user="alice")[1]
    assert say("review", request.id, user="dana")[0] == Exit.NOT_ALLOWED
    code, out, _ = say("review", request.id, "-r", "checked", user="alice")
    assert (code, "reviewed: the emergency grant" in out) == (Exit.OK, True)
    assert "alice: checked" in say("show", request.id, user="alice")[1]


def test_a_worker_can_neither_break_it_nor_have_anything_stand(site: Site) -> None:
    import httpx

    from airflow_approvals.client.tokens import worker_tokens
    from tests.web.site import SECRET

    ti_id, request = asked(site, "attack")
    token = worker_tokens(ti_id, SECRET)()
    for path, body in (
        ("break-glass", {"reason": "x", "revision": 1}),
        ("standing", {"days": 1}),
        ("review", {"remark": "x"}),
    ):
        answer = httpx.post(
            f"{site.base_url}/approvals/api/v1/requests/{request.id}/{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=LOADED,
        )
        assert (answer.status_code, answer.json()["type"]) == (403, "not-allowed")


def test_evidence_is_made_of_the_servers_ledger_and_verifies_without_it(
    site: Site, say: Say, tmp_path: Path
) -> None:
    ti_id, request = asked(site, "evident")
    say("approve", request.id, "--yes", user="alice")
    published(site, ti_id, request)
    out = tmp_path / "evidence"
    code, told, problem = say("evidence", "--since", "2026-01-01", "--out", str(out), user="audrey")
    assert code == Exit.OK, problem
    assert "each with a genuine receipt" in told
    assert not list(tmp_path.glob(".evidence*"))
    with site.person("alice") as alice:
        (tmp_path / "keys.json").write_text(json.dumps(alice.keys()))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "verify", str(out), "--key", str(tmp_path / "keys.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.OK, done.stderr
    assert "says what its ledger says" in done.stdout
    assert say("evidence", "--since", "2026-01-01", "--out", str(out), user="audrey")[0] == Exit.USAGE


def test_only_auditors_take_evidence_and_nothing_is_left_behind(say: Say, tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    code, _, _ = say("evidence", "--since", "2026-01-01", "--out", str(out), user="alice")
    assert code == Exit.NOT_ALLOWED
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", ""])
def test_a_time_that_is_none_is_refused(say: Say, tmp_path: Path, since: str) -> None:
    assert say("evidence", "--since", since, "--out", str(tmp_path / "x"), user="audrey")[0] == Exit.USAGE


def page(site: Site, request: ApprovalRequest, user: str) -> str:
    import httpx

    answer = httpx.get(
        f"{site.base_url}/approvals/requests/{request.id}",
        headers={"Authorization": f"Bearer login-{user}", "Accept": "text/html"},
        timeout=LOADED,
    )
    assert answer.status_code == 200, answer.text
    return " ".join(answer.text.split())


def test_the_page_shows_the_terms_the_drift_and_the_emergency(site: Site, say: Say) -> None:
    ti_id, request = asked(site, "shown")
    say("approve", request.id, "--yes", user="alice")
    published(site, ti_id, request)
    glob = ("--destination", "file:///outbox/*.parquet")
    _, out, _ = say("standing", request.id, "--days", "5", *glob, "-o", "json", user="bob")
    with site.person("alice") as alice:
        standing = alice.get_request(json.loads(out)["id"]).request
    told = page(site, standing, "alice")
    assert "it stands for <b>5 days</b>" in told
    assert "file:///outbox/*.parquet" in told
    say("approve", standing.id, "--yes", user="alice")
    granted = asked(site, "shown")[1]
    assert "Approved by a standing approval" in page(site, granted, "alice")
    with site.worker(site.add_task(run_id=f"manual__{uuid4()}")) as worker:
        drifted = worker.open_request(an_export("shown", rows=1300))[0]
    told = page(site, drifted, "alice")
    assert "Drifted from a standing approval" in told
    assert "<bdi>1,000</bdi></td><td><bdi>1,300</bdi>" in told
    say("break-glass", drifted.id, "--yes", "-r", "the partner is down", user="dana")
    told = page(site, drifted, "alice")
    assert "granted this alone, in an emergency: <bdi>the partner is down</bdi>" in told
