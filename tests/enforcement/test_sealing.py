"""Sealing in a real metadata database: what is stored, what comes back, and what `doctor` finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.enforcement.site import POLICY
from tests.provider.site import airflow_settings, free_port, migrate

pytestmark = pytest.mark.airflow

# One process for many commands: starting Airflow takes most of the time of one.
RUN = """
import contextlib, io, json, os, sys
from airflow.models import Connection, Variable
from airflow.utils.session import create_session
from airflow_approvals.cli.main import main

def put(name, **fields):
    with create_session() as session:
        session.add(Connection(conn_id=name, **fields))

def get(name):
    with create_session() as session:
        row = session.query(Connection).filter(Connection.conn_id == name).one()
        return [row.conn_type, row.host, row.login, row.password, row.schema, row.port, row.extra]

def put_variable(key, value):
    with create_session() as session:
        session.merge(Variable(key=key, val=value))

def get_variable(key):
    with create_session() as session:
        return session.query(Variable).filter(Variable.key == key).one().val

def change(name, **fields):
    with create_session() as session:
        row = session.query(Connection).filter(Connection.conn_id == name).one()
        for field, value in fields.items():
            setattr(row, field, value)

def run(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(arguments))
        except SystemExit as ended:
            code = ended.code
    return [code, out.getvalue(), err.getvalue()]

def findings(subject):
    told = json.loads(run("doctor", "-o", "json", "--url", "http://127.0.0.1:9")[1])
    return [[one["level"], one["text"]] for one in told["checks"] if one["subject"] == subject]

def keys():
    path = os.path.join(os.environ["AIRFLOW_HOME"], "approvals/keys/sealing_keys.json")
    return json.loads(open(path).read())
"""
FULL = (
    "conn_type='postgres', host='db.example.com', login='etl', password='secret', schema='sales', port=5432, "
    'extra=\'{"sslmode": "require"}\''
)
ALL = ["postgres", "db.example.com", "etl", "secret", "sales", 5432, '{"sslmode": "require"}']


@dataclass(frozen=True, kw_only=True)
class Home:
    """An AIRFLOW_HOME of its own with a migrated database; no server runs."""

    folder: Path
    settings: dict[str, str]

    def python(self, script: str, **environment: str) -> list[object]:
        """Run a script that prints one JSON list last, and return it."""
        done = subprocess.run(
            [sys.executable, "-c", f"{RUN}\n{script}"],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=180,
            env={**os.environ, **self.settings, "COLUMNS": "300", **environment},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        told: list[object] = json.loads(done.stdout.splitlines()[-1])
        return told


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("sealing")
    (folder / "approvals").mkdir()
    (folder / "approvals" / "policy.yaml").write_text(POLICY)
    settings = {
        **airflow_settings(folder, port=free_port()),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__FERNET_KEY": "NBJC_zYX6NWNek9v7tVv64uZo1tcjpSFpCsGkhqmGlA=",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
    }
    migrate(folder, settings)
    return Home(folder=folder, settings=settings)


def test_what_is_unsealed_is_what_was_sealed_to_the_last_field(home: Home) -> None:
    stored, again, empty = home.python(
        f"put('whole', {FULL}); put('prod_bare', conn_type='http')\n"
        "put_variable('prod_key', 'the key')\n"
        "assert run('seal', 'whole', 'prod_bare')[0] == 0\n"
        "assert run('seal', '--variable', 'prod_key')[0] == 0\n"
        "stored = [get('whole'), get_variable('prod_key')]\n"
        "assert run('unseal', 'whole', 'prod_bare')[0] == 0\n"
        "assert run('unseal', '--variable', 'prod_key')[0] == 0\n"
        "print(json.dumps([stored, [get('whole'), get_variable('prod_key')], get('prod_bare')]))"
    )
    assert not {"secret", "etl", "db.example.com", "the key"} & set(json.dumps(stored).split('"'))
    assert again == [ALL, "the key"]
    assert empty == ["http", None, None, None, None, None, None]


def test_sealing_twice_or_what_is_not_there_is_refused(home: Home) -> None:
    twice, unknown, neither, unsealed = home.python(
        f"put('twice', {FULL}); run('seal', 'twice')\n"
        "print(json.dumps([run('seal', 'twice'), run('seal', 'nowhere'), run('seal'),"
        " [run('unseal', 'twice')[0], run('unseal', 'twice')]]))"
    )
    assert "sealed already" in str(twice)
    assert "there is none in the metadata database" in str(unknown)
    assert "name what to seal" in str(neither)
    assert "is not sealed" in str(unsealed)


def test_after_a_rotation_everything_opens_and_the_old_key_is_gone(home: Home) -> None:
    before, after, told, seals, opened = home.python(
        f"put('rotated', {FULL}); run('seal', 'rotated'); before = keys()\n"
        "told = run('rotate-seal'); after = keys()\n"
        "seals = findings('seals'); run('unseal', 'rotated')\n"
        "now = [after['current'], len(after['keys'])]\n"
        "print(json.dumps([before['current'], now, told, seals, get('rotated')]))"
    )
    assert isinstance(after, list)
    assert after[0] != before
    assert after[1] == 1
    assert "sealed anew" in str(told)
    assert all(level == "ok" or "not sealed" in text for level, text in seals), seals  # type: ignore[attr-defined]
    assert opened == ALL


def test_doctor_finds_an_older_seal_that_was_put_back(home: Home) -> None:
    (seals,) = home.python(
        f"put('rolled', {FULL}); run('seal', 'rolled'); older = get('rolled')[6]\n"
        "run('unseal', 'rolled'); change('rolled', password='newer'); run('seal', 'rolled')\n"
        "change('rolled', extra=older); told = findings('seals'); run('unseal', 'rolled')\n"
        "print(json.dumps([told]))"
    )
    assert any("rolled: not what the ledger says was sealed last" in text for _, text in seals)  # type: ignore[attr-defined]


def test_doctor_finds_a_seal_that_was_moved_to_another_name(home: Home) -> None:
    (seals,) = home.python(
        f"put('from_here', {FULL}); put('to_there', conn_type='http'); run('seal', 'from_here')\n"
        "change('to_there', extra=get('from_here')[6]); told = findings('seals')\n"
        "change('to_there', extra='{}'); run('unseal', 'from_here')\n"
        "print(json.dumps([told]))"
    )
    assert any("it holds the seal of connection from_here" in text for _, text in seals)  # type: ignore[attr-defined]


def test_doctor_finds_what_is_protected_and_open_or_shadowed(home: Home) -> None:
    seals, environment = home.python(
        f"put('prod_open', {FULL}); told = [findings('seals'), findings('environment')]\n"
        "run('seal', 'prod_open'); print(json.dumps(told))",
        AIRFLOW_CONN_PROD_OPEN="http://x",
        AIRFLOW_CONN_DEV="http://x",
        AIRFLOW_VAR_PROD_THING="x",
    )
    assert any("airflow approvals seal prod_open" in text for _, text in seals)  # type: ignore[attr-defined]
    assert [text.split()[0] for _, text in environment] == [  # type: ignore[attr-defined]
        "AIRFLOW_CONN_PROD_OPEN",
        "AIRFLOW_VAR_PROD_THING",
    ]


def test_without_the_keys_nothing_opens_and_doctor_says_so(home: Home) -> None:
    seals, refused = home.python(
        f"put('lost', {FULL}); run('seal', 'lost')\n"
        "path = os.path.join(os.environ['AIRFLOW_HOME'], 'approvals/keys/sealing_keys.json')\n"
        "os.rename(path, path + '.away'); told = [findings('seals'), run('unseal', 'lost')]\n"
        "os.rename(path + '.away', path); os.chmod(path, 0o644)\n"
        "told[0] += findings('seals'); os.chmod(path, 0o600); run('unseal', 'lost'); print(json.dumps(told))"
    )
    assert any("cannot be read" in text for _, text in seals)  # type: ignore[attr-defined]
    assert any("open to others" in text for _, text in seals)  # type: ignore[attr-defined]
    assert isinstance(refused, list)
    assert refused[0] != 0
