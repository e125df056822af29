"""The threat model claims nothing that no test shows."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"tests/[\w/]+\.py::\w+", TEXT)))


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Return the test functions of a file, read and not imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_the_threat_model_names_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    assert function in functions_of(ROOT / path)


def test_every_attack_names_a_test() -> None:
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    rows = [
        row
        for section in sections
        if section.startswith("Attacks")
        for row in section.splitlines()
        if row.startswith("| ") and not row.startswith("| attack")
    ]
    assert len(rows) > 30
    assert [row for row in rows if "::test_" not in row] == []
