# ruff: noqa: E501  # tables read best with one case a line
"""`airflow-approvals pii ...`: what people and scripts are told of personal data in a file or table."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from airflow_approvals.cli import pii
from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.pii.chart import MOST_ROWS, Count, Counts, draw
from airflow_approvals.pii.scanner import Scanner
from demo.customers import COLUMNS
from tests.cli.conftest import Told

ROOT = Path(__file__).parents[2]

CANARY = "canary.7f3a@example.com"
ROWS = "".join(
    f"{number},Maria Gonzalez,canary{number}.7f3a@example.com,wrote to canary{number}.7f3a@example.com\n"
    for number in range(30)
)
Tell = Callable[..., Told]


@pytest.fixture(scope="module")
def engine() -> Scanner:
    return Scanner()


@pytest.fixture
def tell(
    engine: Scanner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Tell:
    """Return what runs one command in a folder with a file of 30 people, with a model that is loaded once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setattr(pii, "_scanner", lambda args: engine)
    Path("people.csv").write_text("id,name,mail,note\n" + ROWS)

    def run(*words: str) -> Told:
        capsys.readouterr()
        try:
            code = main(["pii", *words])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        assert "canary" not in said.out + said.err
        return Told(code=code, out=said.out, err=said.err)

    return run


def write_key(name: str = "key", mode: int = 0o600) -> str:
    Path(name).write_bytes(base64.b64encode(os.urandom(32)))
    Path(name).chmod(mode)
    return name


def test_scan_shows_what_is_in_every_column(tell: Tell) -> None:
    said = tell("scan", "people.csv")
    assert said.code == Exit.OK
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert lines["column"].split() == [
        "column",
        "type",
        "cells",
        "null",
        "found",
        "in",
        "cells",
        "share",
        "score",
    ]
    assert lines["mail"].split() == ["mail", "string", "30", "0", "EMAIL_ADDRESS", "30", "100%", "1.00"]
    assert lines["name"].split()[4:7] == ["PERSON", "30", "100%"]
    assert "30 rows, 4 columns" in said.out


def test_scan_tells_programs_the_report_its_parts_and_digests(tell: Tell) -> None:
    said = tell("scan", "people.csv", "--output", "json", "--report", "report.json")
    assert said.json == json.loads(Path("report.json").read_text())
    assert said.json["report"]["rows"] == 30
    (part,) = said.json["parts"]
    assert (part["name"], part["rows"]) == ("people.csv", 30)
    assert len(part["findings_sha256"]) == len(said.json["sha256"]) == 64


def test_a_scan_can_fail_where_there_is_any_personal_data(tell: Tell) -> None:
    Path("clean.csv").write_text("n\n" + "x\n" * 5)
    assert tell("scan", "clean.csv", "--on-pii", "fail").code == Exit.OK
    said = tell("scan", "people.csv", "--on-pii", "fail")
    assert said.code == Exit.PII_FOUND
    assert "people.csv: holds personal data" in said.err


def test_charts_are_drawn_and_stand_alone(tell: Tell) -> None:
    assert tell("scan", "people.csv", "--chart", "found.svg").code == Exit.OK
    assert tell("mask", "people.csv", "out.csv", "--chart", "masked.html").code == Exit.OK
    drawing = ElementTree.parse("found.svg").getroot()  # noqa: S314  # our own
    texts = [text for text in drawing.itertext() if text.strip()]
    assert {"mail", "EMAIL_ADDRESS", "30"} <= set(texts)
    page = Path("masked.html").read_text()
    assert "30 → 0" in page
    assert page.replace("http://www.w3.org/2000/svg", "").count("http") == page.count("http-equiv")
    assert "<script" not in page


def test_a_chart_of_another_kind_is_refused_before_anything_is_done(tell: Tell) -> None:
    said = tell("mask", "people.csv", "out.csv", "--chart", "chart.png")
    assert said.code == Exit.USAGE
    assert "expected one of these names" in said.err
    assert not Path("out.csv").exists()


def test_names_in_a_chart_cannot_break_out_of_it() -> None:
    rows = tuple(Count(f'<b>&"\x1b\u202e{number}', "X" * 99, number, number % 2) for number in range(100))
    drawn = draw(Counts(rows=rows, before="was", after="is"), title="<script>")
    root = ElementTree.fromstring(drawn)  # noqa: S314  # our own
    texts = list(root.itertext())
    assert '<b>&"\\u001b\\u202e7' in texts
    assert any(f"{100 - MOST_ROWS} more rows not shown" in text for text in texts)
    assert "\x1b" not in drawn


def test_an_empty_chart_says_so() -> None:
    assert ">none<" in draw(Counts(rows=(), before="was", after=""), title="t")


def test_a_plan_is_drawn_up_written_and_never_overwritten_by_accident(tell: Tell) -> None:
    said = tell("plan", "people.csv", "--plan", "plan.yaml", "--operator", "PERSON=pseudonym")
    assert said.code == Exit.OK
    assert "PERSON: pseudonym" in said.out
    assert "EMAIL_ADDRESS: replace" in said.out
    written = Path("plan.yaml").read_text()
    assert "canary" not in written
    assert tell("plan", "people.csv", "--plan", "plan.yaml").code == Exit.USAGE
    assert Path("plan.yaml").read_text() == written
    assert tell("plan", "people.csv", "--plan", "plan.yaml", "--overwrite").code == Exit.OK
    assert Path("plan.yaml").read_text() != written


def test_mask_masks_verifies_and_says_what_was_done(tell: Tell) -> None:
    key = write_key()
    tell("plan", "people.csv", "--plan", "plan.yaml", "--operator", "pseudonym")
    said = tell(
        "mask", "people.csv", "out.csv", "--plan", "plan.yaml", "--key-file", key, "--report", "r.json"
    )
    assert said.code == Exit.OK, said.err
    assert "verified: none of" in said.out
    assert len(Path("out.csv").read_text().splitlines()) == 31
    assert "canary" not in Path("out.csv").read_text() + Path("r.json").read_text()
    assert json.loads(Path("r.json").read_text())["verify"]["verified"] is True
    again = tell("verify", "people.csv", "out.csv", "--plan", "plan.yaml", "--key-file", key)
    assert again.code == Exit.OK


@pytest.mark.parametrize("output", ["table", "json"])
def test_what_does_not_hold_does_not_appear_and_what_is_left_is_told(tell: Tell, output: str) -> None:
    tell("plan", "people.csv", "--plan", "plan.yaml")
    plan = yaml.safe_load(Path("plan.yaml").read_text())
    plan["columns"][3] = {"column": "note", "type": "string", "treatment": "leave"}
    Path("leaky.yaml").write_text(yaml.safe_dump(plan))
    Path("out.csv").write_text("as it was before")
    said = tell(
        *("mask", "people.csv", "out.csv", "--plan", "leaky.yaml", "--overwrite"),
        *("--report", "r.json", "--output", output),
    )
    assert said.code == Exit.NOT_VERIFIED
    assert "column 'note': 30 x EMAIL_ADDRESS (survives), rows 0, 1, 2, 3, 4 ..." in said.err
    assert Path("out.csv").read_text() == "as it was before"
    report = json.loads(Path("r.json").read_text())
    assert (report["verify"]["verified"], report["verify"]["columns"]) == (False, ["note"])
    if output == "json":
        assert said.json == report
    else:
        lines = [line.split()[:4] for line in said.out.splitlines()]
        assert ["note", "EMAIL_ADDRESS", "survives", "30"] in lines
    assert not list(Path().glob(".airflow-approvals*"))


def test_verify_finds_a_value_that_was_put_back_and_does_not_tell_it(tell: Tell) -> None:
    tell("plan", "people.csv", "--plan", "plan.yaml")
    tell("mask", "people.csv", "out.csv", "--plan", "plan.yaml")
    masked = Path("out.csv").read_text().splitlines()
    masked[7] = '"6","<PERSON>","<EMAIL_ADDRESS>","wrote to canary3.7f3a@example.com"'
    Path("out.csv").write_text("\n".join(masked) + "\n")
    said = tell("verify", "people.csv", "out.csv", "--plan", "plan.yaml")
    assert said.code == Exit.NOT_VERIFIED
    assert "column 'note': 1 x EMAIL_ADDRESS (survives), rows 6" in said.err
    told = tell("verify", "people.csv", "out.csv", "--plan", "plan.yaml", "--output", "json")
    assert (told.code, told.json["verified"]) == (Exit.NOT_VERIFIED, False)


Words = tuple[str, ...]
REFUSALS: dict[str, tuple[Words, Exit, str]] = {
    "nothing there": (("scan", "nowhere.csv"), Exit.ERROR, "nowhere.csv: cannot be read"),
    "unknown format": (("scan", "odd.xyz"), Exit.ERROR, "odd.xyz: the name does not tell the format"),
    "unknown operator": (("plan", "people.csv", "--operator", "shred"), Exit.USAGE, "expected one of replace"),
    "a pin without a plan": (("mask", "people.csv", "out.csv", "--pin", "0" * 64), Exit.USAGE, "--plan FILE"),
    "another plan than pinned": (("mask", "people.csv", "out.csv", "--plan", "plan.yaml", "--pin", "0" * 64), Exit.NOT_VERIFIED, "has changed since it was pinned"),
    "no plan to verify by": (("verify", "people.csv", "people.csv"), Exit.USAGE, "expected the masking plan"),
    "no key for an operator": (("mask", "people.csv", "out.csv", "--operator", "hash"), Exit.ERROR, "no key for domain 'default'"),
    "a key that others can read": (("mask", "people.csv", "out.csv", "--key-file", "open"), Exit.ERROR, "chmod 600"),
    "a key that is none": (("mask", "people.csv", "out.csv", "--key-file", "nokey"), Exit.ERROR, "is not base64"),
    "a key too short": (("mask", "people.csv", "out.csv", "--key-file", "short"), Exit.ERROR, "expected at least 32"),
    "no key file": (("mask", "people.csv", "out.csv", "--key-file", "gone"), Exit.ERROR, "openssl rand"),
    "onto itself": (("mask", "people.csv", "people.csv", "--overwrite"), Exit.ERROR, "is the source"),
    "into another format": (("mask", "people.csv", "out.parquet"), Exit.USAGE, "another format"),
    "no folder for the report": (("mask", "people.csv", "out.csv", "--report", "gone/report.json"), Exit.USAGE, "--report gone/report.json: there is no such folder"),
    "no folder for the plan": (("plan", "people.csv", "--plan", "gone/plan.yaml"), Exit.USAGE, "--plan gone/plan.yaml: there is no such folder"),
    "no folder for the chart": (("scan", "people.csv", "--chart", "gone/a.svg"), Exit.USAGE, "--chart gone/a.svg: there is no such folder"),
    "an operator for no type": (("mask", "people.csv", "out.csv", "--operator", "EMIAL=redact"), Exit.USAGE, "no recognizer finds EMIAL"),
    "a plan that is not there": (("mask", "people.csv", "out.csv", "--plan", "gone.yaml"), Exit.ERROR, "gone.yaml: cannot be read"),
    "where nothing can be written": (("mask", "people.csv", "/proc/out.csv"), Exit.ERROR, "cannot be written"),
    "a table that is not there": (("scan", "sqlite:///nowhere/a.db#t"), Exit.ERROR, "cannot be opened"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "code", "sentence"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_is_refused_is_said_in_one_sentence_with_an_exit_code(
    tell: Tell, words: Words, code: Exit, sentence: str
) -> None:
    write_key("open", 0o644)
    for name, text in (("nokey", "{a: '?!'}"), ("short", base64.b64encode(b"x" * 16).decode())):
        Path(name).write_text(text)
        Path(name).chmod(0o600)
    Path("odd.xyz").write_text("x")
    if "plan.yaml" in words:
        tell("plan", "people.csv", "--plan", "plan.yaml")
    said = tell(*words)
    assert (said.code, said.out) == (code, "")
    assert sentence in said.err
    assert not Path("out.csv").exists()


def test_a_table_is_masked_into_another(tell: Tell, tmp_path: Path) -> None:
    with sqlite3.connect("a.db") as connection:
        connection.execute("CREATE TABLE people (id INTEGER, mail TEXT)")
        rows = [(number, f"canary{number}.7f3a@example.com") for number in range(30)]
        connection.executemany("INSERT INTO people VALUES (?, ?)", rows)
    database = f"sqlite://{tmp_path}/a.db"
    said = tell("mask", f"{database}#people", f"{database}#masked")
    assert said.code == Exit.OK, said.err
    found = connection.execute("SELECT * FROM masked ORDER BY id").fetchall()
    connection.close()
    assert found == [(number, "<EMAIL_ADDRESS>") for number in range(30)]


def test_a_real_scan_needs_no_airflow_and_checks_itself(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("id,name,mail,note\n" + ROWS)
    code = (
        "import sys; sys.modules['airflow'] = None; "
        "from airflow_approvals.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "pii", "scan", "people.csv", "-o", "json", "--exact-check", "20"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout)["report"]["checked_cells"] > 0


@pytest.mark.parametrize("name", ["pii-scan.svg", "pii-masked.svg"])
def test_the_pictures_in_the_readme_are_of_the_demos_customers(name: str) -> None:
    drawn = (ROOT / "docs" / "img" / name).read_text(encoding="utf-8")
    texts = " ".join(ElementTree.fromstring(drawn).itertext()).replace("\xa0", " ")  # noqa: S314  # our own
    assert f"docs/img/{name}" in (ROOT / "README.md").read_text(encoding="utf-8")
    for column in COLUMNS:
        assert column in texts
    assert drawn.count("http") == drawn.count("http://www.w3.org/")
