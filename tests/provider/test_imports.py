"""DAG files are parsed all day: importing what they use brings nothing heavy along."""

from __future__ import annotations

import pytest

from tests.bench.parse import heavy_modules

pytestmark = pytest.mark.airflow


def test_parsing_a_dag_imports_nothing_heavy() -> None:
    assert heavy_modules() == []
