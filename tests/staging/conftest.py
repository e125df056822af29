"""A real S3 protocol on loopback, behind an Airflow connection, and databases to write into."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.staging.databases import Connect, libpq_url

CONN_ID = "aws_staging"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Any]:
    """Start moto's server, and return a client for it; Airflow knows it as the connection `aws_staging`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    variable = f"AIRFLOW_CONN_{CONN_ID.upper()}"
    words = {"conn_type": "aws", "login": "test-key", "password": "test-secret", "extra": extra}
    os.environ[variable] = json.dumps(words)
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test-key",
        aws_secret_access_key="test-secret",
        region_name="us-east-1",
    )
    yield client
    client.close()
    server.stop()
    del os.environ[variable]


@pytest.fixture
def s3(s3_server: Any) -> Iterator[Any]:
    """Return the client, with an empty bucket named `stage`."""
    s3_server.create_bucket(Bucket="stage")
    yield s3_server
    for upload in s3_server.list_multipart_uploads(Bucket="stage").get("Uploads", ()):
        s3_server.abort_multipart_upload(Bucket="stage", Key=upload["Key"], UploadId=upload["UploadId"])
    for item in s3_server.list_objects_v2(Bucket="stage").get("Contents", ()):
        s3_server.delete_object(Bucket="stage", Key=item["Key"])
    s3_server.delete_bucket(Bucket="stage")


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("psycopg2", marks=pytest.mark.services),
        pytest.param("psycopg", marks=pytest.mark.services),
    ]
)
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Return how to connect to an empty database of each kind."""
    if request.param == "sqlite":
        opened: list[sqlite3.Connection] = []

        def open_sqlite() -> sqlite3.Connection:
            opened.append(sqlite3.connect(tmp_path / "target.db", check_same_thread=False))
            return opened[-1]

        yield open_sqlite
        for each in opened:
            each.close()
        return
    import psycopg
    import psycopg2

    request.getfixturevalue("postgres_url")  # which fails where there is none
    url = libpq_url()
    schema = f"staging_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        admin.execute(f'CREATE SCHEMA "{schema}"')
    connections: list[Any] = []

    def open_postgres() -> Any:
        driver: Any = psycopg2 if request.param == "psycopg2" else psycopg
        connections.append(driver.connect(url, options=f"-c search_path={schema}"))
        return connections[-1]

    yield open_postgres
    for each in connections:
        each.close()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'DROP SCHEMA "{schema}" CASCADE')
