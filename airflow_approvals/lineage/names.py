"""How datasets, columns, jobs and runs are called in lineage, so that every backend takes them.

Marquez refuses NUL, cuts its node ids at colons, keeps 255 characters of a column, and takes few letters in
a namespace: what does not fit is replaced in the same way everywhere, so that names still meet.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from uuid import UUID

from airflow_approvals import __version__

BASE = "https://airflow-approvals.github.io"
PRODUCER = f"{BASE}/producer/{__version__}"

MAX_COLUMN = 255
"""Characters of a column's name in Marquez."""
MAX_NAME = 1000
"""Characters of a dataset's or a job's name: PostgreSQL indexes at most 2.7 kB."""
APPROVAL_JOBS = "approval."
"""What the jobs of approvals begin with; only the service speaks for them."""

_UNFIT = re.compile("[\x00\ud800-\udfff]")
_UNFIT_IN_NAMESPACE = re.compile(r"[^a-zA-Z0-9:;=/_\-.@+]")
_CUTTING_COLON = re.compile(r":(?!//|[0-9])")
_LOCAL = ("file", "")


@dataclass(frozen=True, kw_only=True)
class DatasetName:
    """One dataset as OpenLineage names it."""

    namespace: str
    name: str


def clean(text: str) -> str:
    """Return `text` without what JSON or PostgreSQL cannot hold."""
    return _UNFIT.sub("\ufffd", text)


def column_name(name: str) -> str:
    """Return the name of a column as all events have it: long ones end in a digest of the whole."""
    if not name.strip():
        return f"(blank {len(name)})"  # Marquez wants something to be seen
    if name.isascii() and len(name) <= MAX_COLUMN and "\0" not in name:
        return name  # nearly all are, and there may be thousands
    return _short(clean(name), MAX_COLUMN)


def namespace_of(text: str) -> str:
    """Return `text` as a namespace that Marquez takes."""
    return _short(_UNFIT_IN_NAMESPACE.sub("_", text) or "default", MAX_COLUMN)


def dataset_of(uri: str) -> DatasetName:
    """Return how the dataset at a path or URI is named (OpenLineage: naming); credentials are left out."""
    text = clean(uri)
    if "://" not in text:
        return _dataset("file", text)
    scheme, _, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    host = host.rpartition("@")[2]  # `s3://conn_id@bucket`, or worse, a password
    if scheme in _LOCAL:
        return _dataset("file" if host in ("", "localhost") else f"file://{host}", slash + path)
    if scheme in ("s3a", "s3n"):
        scheme = "s3"
    return _dataset(f"{scheme}://{host}", path or "/")


def receipt_of(namespace: str, request_id: str) -> DatasetName:
    """Return the dataset that one approval writes and that the task which uses it reads.

    `namespace` is that of Airflow's jobs.

    One for every approval: a backend takes the newest version of a dataset for the one that was read, and
    two approvals of one gate can be under way at once.
    """
    return _dataset(f"approvals://{namespace}", f"receipt/{request_id}")


def approval_job(dag_id: str | None, task_id: str | None, gate: str, policy: str) -> str:
    """Return the job whose runs are the approvals of one gate; without a task, of one policy."""
    parts = [dag_id, task_id, gate] if dag_id and task_id else [policy]
    return _name(APPROVAL_JOBS + ".".join(part for part in parts if part))


def run_id_of(request_id: str) -> str:
    """Return the id of the run that an approval is: the request's own, which is a UUID."""
    return str(UUID(request_id))


def _dataset(namespace: str, name: str) -> DatasetName:
    # Marquez cuts at a colon, but for those of `scheme://` and of a port.
    cut = _CUTTING_COLON.sub("_", namespace)
    return DatasetName(namespace=namespace_of(cut), name=_name(name))


def _name(text: str) -> str:
    return _short(clean(text).replace(":", "%3A"), MAX_NAME)


def _short(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{text[: length - 13]}~{digest}"
