"""`policy test` and `policy diff` as a pipeline uses them; the examples of the documentation are true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main

DOCUMENT = (Path(__file__).parents[2] / "docs" / "policy-as-code.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(block("policy"), encoding="utf-8")
    (tmp_path / "policy.cases.yaml").write_text(block("cases"), encoding="utf-8")
    return tmp_path / "policy.yaml"


def test_the_cases_of_the_documentation_pass(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(policy)]) == Exit.OK
    assert main(["policy", "test", str(policy)]) == Exit.OK
    assert "5 of 5 cases passed" in capsys.readouterr().out


def test_a_case_that_fails_is_told_and_fails_the_pipeline(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text(block("policy").replace("100000", "1000"), encoding="utf-8")
    assert main(["policy", "test", str(policy)]) == Exit.ERROR
    told = capsys.readouterr().out
    assert "FAILED  a steward is enough for a small, masked export" in told
    assert "expected approved, found pending" in told
    assert "4 of 5 cases passed" in told
    assert main(["policy", "test", str(policy), "-o", "json"]) == Exit.ERROR
    body = json.loads(capsys.readouterr().out)
    assert [case["passed"] for case in body["cases"]] == [False, True, True, True, True]


def test_cases_may_stand_elsewhere_and_must_be_there(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.cases.yaml").rename(tmp_path / "elsewhere.yaml")
    assert main(["policy", "test", str(policy)]) == Exit.ERROR
    assert "policy.cases.yaml" in capsys.readouterr().err
    assert main(["policy", "test", str(policy), "--cases", str(tmp_path / "elsewhere.yaml")]) == Exit.OK


def test_a_weaker_policy_fails_the_pipeline_and_a_stricter_one_does_not(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(block("policy").replace("[carol]", "[carol, mallory]"), encoding="utf-8")
    assert main(["policy", "diff", str(policy), str(new)]) == Exit.ERROR
    assert "weaker   groups.security: mallory joined" in capsys.readouterr().out
    assert main(["policy", "diff", str(new), str(policy), "-o", "json"]) == Exit.OK
    body = json.loads(capsys.readouterr().out)
    assert (body["weaker"], body["differences"][0]["effect"]) == (False, "stricter")
    assert main(["policy", "diff", str(policy), str(policy)]) == Exit.OK
    assert "no difference" in capsys.readouterr().out
