from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest

from airflow_approvals.core.errors import (
    ConfigurationError,
    DigestMismatchError,
    InvalidRequestError,
    SourceEmptyError,
)
from airflow_approvals.pii.cells import LONGEST_CELL
from airflow_approvals.pii.masking.operators import Pseudonym, Replace
from airflow_approvals.pii.masking.rules import Treatment
from airflow_approvals.pii.plan import MaskingPlan, read_plan, write_plan
from airflow_approvals.pii.planning import _sampled, plan_masking
from airflow_approvals.pii.scanner import Scanner
from tests.pii.customers import customers

EXPECTED = {
    "customer_id": (Treatment.LEAVE, ""),
    "full_name": (Treatment.CELL, "PERSON"),
    "email": (Treatment.CELL, "EMAIL_ADDRESS"),
    "phone": (Treatment.CELL, "PHONE_NUMBER"),
    "ssn": (Treatment.CELL, "US_SSN"),
    "credit_card": (Treatment.CELL, "CREDIT_CARD"),
    "iban": (Treatment.CELL, "IBAN_CODE"),
    "ip": (Treatment.CELL, "IP_ADDRESS"),
    "city": (Treatment.CELL, "LOCATION"),
    "address": (Treatment.CELL, "LOCATION"),
    "amount": (Treatment.LEAVE, ""),
    "created_at": (Treatment.LEAVE, ""),
    "status": (Treatment.LEAVE, ""),
    "notes": (Treatment.TEXT, ""),
    "payload": (Treatment.LEAVES, ""),
}


@pytest.fixture(scope="module")
def plan(scanner: Scanner) -> MaskingPlan:
    return plan_masking(
        scanner, customers(400, seed=2).to_batches(max_chunksize=90), sample=120,
        operators={"PERSON": Pseudonym(domain="people")},
    )  # fmt: skip


def test_every_column_gets_the_treatment_that_a_person_would_give_it(plan: MaskingPlan) -> None:
    assert {one.column: (one.treatment, one.entity_type) for one in plan.columns} == EXPECTED
    assert plan.sampled_rows == 120


def test_leaves_that_are_one_thing_are_masked_as_a_whole(plan: MaskingPlan) -> None:
    (payload,) = [one for one in plan.columns if one.column == "payload"]
    leaves = {leaf.path: leaf.entity_type for leaf in payload.leaves}
    assert leaves["/contact/name"] == "PERSON"
    assert leaves["/contact/email"] == "EMAIL_ADDRESS"
    assert leaves["/contact/phones/*"] == "PHONE_NUMBER"
    assert leaves["/device/ip"] == "IP_ADDRESS"
    assert "/tags/*" not in leaves


def test_without_names_the_cells_alone_decide_for_what_patterns_know(scanner: Scanner) -> None:
    table = customers(60, seed=3).select(["email", "credit_card", "iban", "ip", "status"])
    found = plan_masking(scanner, table.rename_columns(["a", "b", "c", "d", "e"]).to_batches())
    assert [one.entity_type for one in found.columns] == [
        "EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "",
    ]  # fmt: skip


NAMED = {
    "email_address": ("EMAIL_ADDRESS", [f"jo.{n}@example.com" for n in range(30)]),
    "contact.emailAddress": ("EMAIL_ADDRESS", [f"jo.{n}@example.com" for n in range(30)]),
    "phoneNumber": ("PHONE_NUMBER", [f"212 555 01{n}" for n in range(10, 40)]),
    "firstName": ("PERSON", ["\u0645\u062d\u0645\u062f"] * 30),
    "Full Name": ("PERSON", ["qwrtz xkcd"] * 30),
}


@pytest.mark.parametrize(("name", "wanted", "cells"), [(name, *case) for name, case in NAMED.items()])
def test_a_name_that_leaves_no_doubt_decides_however_it_is_written(
    scanner: Scanner, name: str, wanted: str, cells: list[str]
) -> None:
    (found,) = plan_masking(scanner, pa.table({name: cells}).to_batches()).columns
    assert (found.treatment, found.entity_type) == (Treatment.CELL, wanted)


def test_a_name_alone_does_not_make_persons_of_numbers_and_products(scanner: Scanner) -> None:
    table = pa.table({"product_name": ["USB cable"] * 30, "customer_name": list(range(30))})
    assert not [
        one.entity_type for one in plan_masking(scanner, table.to_batches()).columns if one.entity_type
    ]


def test_numbers_in_leaves_are_masked_as_a_whole_and_times_are_left_alone(scanner: Scanner) -> None:
    rows = [{"phone": 2125550100 + n, "seen": datetime(2020, 1, 1 + n, tzinfo=UTC)} for n in range(28)]
    (found,) = plan_masking(scanner, pa.table({"x": rows}).to_batches()).columns
    assert [(leaf.path, leaf.entity_type, bool(leaf.operator)) for leaf in found.leaves] == [
        ("/phone", "PHONE_NUMBER", True),
        ("/seen", "", False),
    ]


def test_texts_that_nothing_can_search_are_dropped_and_the_plan_says_why(scanner: Scanner) -> None:
    table = pa.table({"x": ["a", "b" * (LONGEST_CELL + 1)], "y": [["c" * (LONGEST_CELL + 1)], []]})
    for found in plan_masking(scanner, table.to_batches()).columns:
        assert (found.treatment, found.because) == (
            Treatment.DROP,
            "texts of more than 1,000,000 characters, which nothing can search",
        )


def test_an_operator_for_a_type_that_nothing_is_found_as_is_refused(scanner: Scanner) -> None:
    with pytest.raises(InvalidRequestError, match="operators: no recognizer finds EMIAL; expected some of"):
        plan_masking(scanner, pa.table({"x": ["a"]}).to_batches(), operators={"EMIAL": Replace()})


def test_a_sample_does_not_keep_the_batches_that_it_was_drawn_from() -> None:
    before = pa.total_allocated_bytes()

    def batches() -> Iterator[Any]:
        for number in range(50):
            yield pa.record_batch({"x": [f"{number} {'x' * 1000}"] * 1000})

    table = _sampled(batches(), 100, 0)
    assert len(set(table["x"].to_pylist())) > 30  # from all over
    assert pa.total_allocated_bytes() - before < 5_000_000  # of 50 MB


def test_a_plan_says_no_value_of_the_data(plan: MaskingPlan, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    for row in customers(400, seed=2).to_pylist():
        assert row["email"] not in text
        assert row["full_name"] not in text


def test_a_column_with_too_few_cells_is_searched_and_not_left_alone(scanner: Scanner) -> None:
    (found,) = plan_masking(scanner, pa.table({"x": ["pending"] * 5}).to_batches()).columns
    assert found.treatment is Treatment.TEXT


def test_a_plan_is_written_edited_pinned_and_read(plan: MaskingPlan, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    write_plan(plan, path)
    assert read_plan(path, pinned=plan.digest).rules() == plan.rules()
    assert plan.digest in path.read_text()


def test_reasons_are_not_part_of_the_digest(plan: MaskingPlan) -> None:
    reviewed = plan.columns[0].model_copy(update={"because": "reviewed"})
    assert plan.model_copy(update={"columns": (reviewed, *plan.columns[1:])}).digest == plan.digest


def test_a_pinned_plan_that_was_changed_is_refused(plan: MaskingPlan, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    write_plan(plan, path)
    path.write_text(path.read_text().replace("entity_type: US_SSN", "entity_type: URL", 1))
    with pytest.raises(DigestMismatchError, match="changed since it was pinned"):
        read_plan(path, pinned=plan.digest)


BROKEN = {
    "not YAML": "columns: [",
    "an unknown word": "columns: [{column: a, treatment: shred}]",
    "an unknown field": "columns: [{column: a, treatment: leave, colour: red}]",
    "a whole cell without an operator": "columns: [{column: a, treatment: cell}]",
    "a key twice": "columns: [{column: a, treatment: cell, treatment: leave}]",
    "nothing in it": "",
    "every column dropped": "columns: [{column: a, treatment: drop}]",
    "a leaf that is none": "columns: [{column: a, treatment: leaves, leaves: [{path: b/c}]}]",
    "an operator of a leaf for nothing": """
        columns: [{column: a, treatment: leaves, leaves: [{path: /b, operator: {op: redact}}]}]""",
    "leaves of a text": "columns: [{column: a, treatment: text, leaves: [{path: /b}]}]",
    "an unknown operator": "columns: [{column: a, treatment: cell, entity_type: X, operator: {op: burn}}]",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plan_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"plan\.yaml"):
        read_plan(path)


def test_there_is_no_plan_without_rows(scanner: Scanner) -> None:
    with pytest.raises(SourceEmptyError):
        plan_masking(scanner, customers(1).slice(0, 0).to_batches())
