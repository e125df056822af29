"""A real S3 protocol on loopback, behind an Airflow connection."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

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
