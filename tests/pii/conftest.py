from __future__ import annotations

import pytest

from airflow_approvals.pii.scanner import Scanner
from tests.staging.conftest import connect as connect  # databases to read from and to write into


@pytest.fixture(scope="session")
def scanner() -> Scanner:
    """One scanner with default configuration; the model is loaded once for all tests."""
    return Scanner()
