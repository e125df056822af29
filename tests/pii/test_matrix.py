"""Every format, column type and way of masking: schema, nulls and order stay, or the rule says so."""

from __future__ import annotations

import datetime
import decimal
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv as pacsv  # noqa: TID253
from pyarrow import parquet  # noqa: TID253

from airflow_approvals.core.errors import ApprovalsError, InvalidRequestError, SourceUnreadableError
from airflow_approvals.pii.masking.arrow import mask_batch
from airflow_approvals.pii.masking.datasets import mask_dataset
from airflow_approvals.pii.masking.encryption import decrypt
from airflow_approvals.pii.masking.forms import joining_form
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.operators import (
    Encrypt,
    Fake,
    Generalise,
    Hash,
    Mask,
    Operator,
    Pseudonym,
    Redact,
    Replace,
    ShiftDate,
)
from airflow_approvals.pii.masking.reading import DatasetReader
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.tables import TableMasker
from airflow_approvals.pii.verify import Verifier
from airflow_approvals.pii.verify_datasets import verify_masked
from airflow_approvals.staging.locations import locate
from tests.pii.mask_samples import KEYS, OTHER_KEYS, PatternFinder, relaxed

DOMAIN = "customers"
OPERATORS: dict[str, Operator] = {
    one.op: one
    for one in (
        Replace(), Redact(), Mask(), Hash(domain=DOMAIN), Pseudonym(domain=DOMAIN), ShiftDate(domain=DOMAIN),
        Generalise(to="year"), Fake(domain=DOMAIN), Encrypt(domain=DOMAIN),
    )
}  # fmt: skip
DAY = datetime.date(1984, 5, 3)
MOMENT = datetime.datetime(1984, 5, 3, 12, 30, 1, 5)  # noqa: DTZ001  # no zone
MAILS = ["x1@canary.org", None, "x2@canary.org", "", "x1@canary.org"]
TEXTS = {
    "string": pa.string(), "large_string": pa.large_string(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}  # fmt: skip
TYPES: dict[str, tuple[Any, list[Any]]] = {
    **{name: (kind, MAILS) for name, kind in TEXTS.items()},
    "int64": (pa.int64(), [4111111111111111, None, 2**62, 0, 7]),
    "uint64": (pa.uint64(), [2**64 - 1, None, 3, 4, 5]),
    "float64": (pa.float64(), [1.5, None, 4111111111111111.0, -2.25, 0.1]),
    "decimal": (pa.decimal128(20, 2), [decimal.Decimal("12.50"), None, decimal.Decimal(0), None, None]),
    "bool": (pa.bool_(), [True, None, False, None, True]),
    "date": (pa.date32(), [DAY, None, datetime.date(2000, 2, 29), DAY, None]),
    "timestamp": (pa.timestamp("us"), [MOMENT, None, MOMENT, None, None]),
    "timestamp_tz": (
        pa.timestamp("us", tz="UTC"),
        [MOMENT.replace(tzinfo=datetime.UTC), None, None, None, None],
    ),
    "small": (pa.int8(), [127, None, -128, 100, 0]),
    "nan": (pa.float32(), [math.nan, None, 1.5, math.inf, None]),
    "binary": (pa.binary(), [b"\xff\x00", None, b"x1@canary.org", b"", b"\x80"]),
    "list": (pa.list_(pa.string()), [["x1@canary.org", None], None, [], ["a"], ["x2@canary.org"]]),
    "struct": (
        pa.struct([("mail", pa.string()), ("n", pa.int8())]),
        [{"mail": "x1@canary.org", "n": 1}, None, {"mail": None, "n": None}, {"mail": "a", "n": 2}, None],
    ),
    "map": (
        pa.map_(pa.string(), pa.string()),
        [[("k", "x1@canary.org")], None, [], [("x2@canary.org", "v")], None],
    ),
}  # fmt: skip
NESTED = ("list", "struct", "map")
DATES = ("date", "timestamp", "timestamp_tz")
# What a file of each format can say of these types.
IN_FORMAT: dict[str, tuple[str, ...]] = {
    "parquet": tuple(TYPES),
    "csv": ("string",),
    "jsonl": ("string", "int64", "float64", "bool", "list", "struct"),
}
CASES = [(format_, kind) for format_, kinds in IN_FORMAT.items() for kind in kinds]


def write(path: Path, kind: str) -> Path:
    arrow, values = TYPES[kind]
    table = pa.table(
        {
            "id": pa.array([f"k{number}" for number in range(len(values))]),
            "value": pa.array(values, arrow),
            "rest": pa.array(["one", None, "two", "", "three"]),
        }
    )
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".csv":
        pacsv.write_csv(table, path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    return path


def rules_of(rule: ColumnRule) -> MaskingRules:
    leave = {name: ColumnRule(column=name, treatment=Treatment.LEAVE) for name in ("id", "rest")}
    return MaskingRules(columns=(leave["id"], rule, leave["rest"]), subject_column="id")


def cell(operator: Operator, *, becomes: str | None = None) -> ColumnRule:
    return ColumnRule(
        column="value",
        treatment=Treatment.CELL,
        entity_type="CODE",
        operator=operator,
        becomes=becomes,
    )


def read(path: Path) -> tuple[Any, dict[str, list[Any]]]:
    """Return the schema (None for JSON Lines) and the columns."""
    batches = list(DatasetReader(locate(str(path))).batches())
    if isinstance(batches[0], list):
        rows = [row for batch in batches for row in batch]
        return None, {name: [row.get(name) for row in rows] for name in rows[0]}
    table = pa.Table.from_batches(batches)
    return table.schema, table.to_pydict()


def keeps_type(kind: str, operator: str) -> bool:
    """Tell what is promised: text stays text, dates moved or made coarser dates, faked integers integers."""
    if kind in TEXTS:
        return True
    if kind in DATES:
        return operator in ("shift_date", "generalise")
    return kind in ("int64", "uint64", "small") and operator == "fake"


def check(source: Path, masked: Path, rules: MaskingRules, *, becomes: str | None = None) -> None:
    """Hold what is kept against the source, then let verification do so with the keys at hand."""
    before_schema, before = read(source)
    after_schema, after = read(masked)
    assert list(after) == list(before)
    assert (after["id"], after["rest"]) == (before["id"], before["rest"])
    assert [value is None for value in after["value"]] == [value is None for value in before["value"]]
    if before_schema is not None:
        for field in before_schema:
            changed = field.name == "value" and becomes and field.type not in TEXTS.values()
            expected = pa.string() if changed else field.type
            assert after_schema.field(field.name).type == expected
            assert after_schema.field(field.name).nullable == field.nullable
    verify_masked(str(source), str(masked), rules, PatternFinder(), keys=KEYS).check()


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
@pytest.mark.parametrize(("format_", "kind"), CASES)
def test_whole_cells_keep_their_type_or_are_refused(
    tmp_path: Path, format_: str, kind: str, operator: Operator
) -> None:
    source, masked = write(tmp_path / f"in.{format_}", kind), tmp_path / f"out.{format_}"
    rules = rules_of(cell(operator))
    if not keeps_type(kind, operator.op):
        with pytest.raises(InvalidRequestError, match="becomes: string"):
            mask_dataset(str(source), str(masked), rules, KEYS, PatternFinder())
        assert not masked.exists()
        return
    mask_dataset(str(source), str(masked), rules, KEYS, PatternFinder())
    check(source, masked, rules)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
@pytest.mark.parametrize(("format_", "kind"), CASES)
def test_whole_cells_of_every_type_can_become_text(
    tmp_path: Path, format_: str, kind: str, operator: Operator
) -> None:
    source, masked = write(tmp_path / f"in.{format_}", kind), tmp_path / f"out.{format_}"
    rules = rules_of(cell(operator, becomes="string"))
    mask_dataset(str(source), str(masked), rules, KEYS, PatternFinder())
    check(source, masked, rules, becomes="string")


@pytest.mark.parametrize("treatment", [Treatment.TEXT, Treatment.LEAVES, Treatment.LEAVE])
@pytest.mark.parametrize(("format_", "kind"), CASES)
def test_texts_and_leaves_keep_every_type_or_are_refused(
    tmp_path: Path, format_: str, kind: str, treatment: Treatment
) -> None:
    source, masked = write(tmp_path / f"in.{format_}", kind), tmp_path / f"out.{format_}"
    # What is left alone is left alone: that something is found in it is another test's subject.
    may_stay = ("*",) if treatment is Treatment.LEAVE else ()
    rules = rules_of(ColumnRule(column="value", treatment=treatment, leave_entities=may_stay))
    allowed = {
        Treatment.LEAVE: tuple(TYPES),
        Treatment.TEXT: tuple(TEXTS),
        Treatment.LEAVES: (*TEXTS, *NESTED),
    }[treatment]
    if format_ == "parquet" and kind not in allowed:
        with pytest.raises((InvalidRequestError, SourceUnreadableError), match=r"whole cells"):
            mask_dataset(str(source), str(masked), rules, KEYS, PatternFinder())
        return
    mask_dataset(str(source), str(masked), rules, KEYS, PatternFinder())
    check(source, masked, rules)
    if treatment is not Treatment.LEAVE:
        assert "canary" not in str(read(masked)[1])


@pytest.mark.parametrize(("format_", "kind"), CASES)
def test_dropped_columns_are_gone_and_nothing_else(tmp_path: Path, format_: str, kind: str) -> None:
    source, masked = write(tmp_path / f"in.{format_}", kind), tmp_path / f"out.{format_}"
    rules = rules_of(ColumnRule(column="value", treatment=Treatment.DROP, entity_type="CODE"))
    mask_dataset(str(source), str(masked), rules, KEYS, PatternFinder())
    before, after = read(source)[1], read(masked)[1]
    assert after == {name: values for name, values in before.items() if name != "value"}
    verify_masked(str(source), str(masked), rules, PatternFinder(), keys=KEYS).check()


# --- properties ---------------------------------------------------------------------------------------------

KEYED = [one for one in OPERATORS.values() if hasattr(one, "domain") and one.op != "shift_date"]
values = st.lists(st.one_of(st.none(), st.text(min_size=1, max_size=30)), min_size=1, max_size=8)


def masked_values(texts: Sequence[str | None], operator: Operator, keys: KeyRing = KEYS) -> list[str | None]:
    rules = MaskingRules(columns=(cell(operator),))
    batch = pa.record_batch({"value": pa.array(texts, pa.string())})
    made: list[str | None] = (
        mask_batch(TableMasker(rules, keys, PatternFinder()), batch).column(0).to_pylist()
    )
    return made


@pytest.mark.parametrize("operator", KEYED, ids=lambda one: one.op)
@given(texts=values)
@relaxed
def test_masking_is_the_same_under_the_same_key_wherever_a_value_stands(
    operator: Operator, texts: list[str | None]
) -> None:
    made = masked_values(texts, operator)
    assert made == masked_values(texts, operator)
    assert made[::-1] == masked_values(texts[::-1], operator)


@pytest.mark.parametrize("operator", [OPERATORS["pseudonym"], OPERATORS["hash"]], ids=lambda one: one.op)
@given(texts=values, others=values)
@relaxed
def test_two_tables_join_on_masked_values_as_they_did_and_not_under_another_key(
    operator: Operator, texts: list[str | None], others: list[str | None]
) -> None:
    one, other = masked_values(texts, operator), masked_values(others, operator)
    foreign = masked_values(others, operator, OTHER_KEYS)
    for left, right in itertools.product(range(len(texts)), range(len(others))):
        a, b = texts[left], others[right]
        if a is None or b is None:
            continue
        assert (one[left] == other[right]) == (joining_form(a) == joining_form(b))
        assert one[left] != foreign[right]


@given(texts=values)
@relaxed
def test_what_is_encrypted_can_be_decrypted_to_the_last_character(texts: list[str | None]) -> None:
    made = masked_values(texts, Encrypt(domain=DOMAIN))
    opened = [None if one is None else decrypt(one, KEYS, DOMAIN) for one in made]
    assert opened == texts


PEOPLE = [
    {
        "id": f"k{number}",
        "name": f"Mr. Canary{chr(65 + number)}{number}",
        "mail": f"box{number}@canary{number}.org",
        "card": f"4111-1111-1111-{1000 + number}",
        "note": f"wrote to box{(number + 1) % 8}@canary{(number + 1) % 8}.org",
    }
    for number in range(8)
]
PUT_BACK_RULES = MaskingRules(
    columns=(
        ColumnRule(column="id", treatment=Treatment.LEAVE),
        *(
            ColumnRule(column=column, treatment=Treatment.CELL, entity_type=entity, operator=operator)
            for column, entity, operator in (
                ("name", "PERSON", Pseudonym(domain=DOMAIN)),
                ("mail", "EMAIL_ADDRESS", Replace()),
                ("card", "CREDIT_CARD", Encrypt(domain=DOMAIN)),
            )
        ),
        ColumnRule(column="note", treatment=Treatment.TEXT),
    )
)
WAYS = {
    "as it was": str,
    "within a sentence": lambda value: f"see {value}, please",
    "upper case": str.upper,
    "within JSON": lambda value: json.dumps({"a": [value]}),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@given(
    row=st.integers(0, 7),
    person=st.integers(0, 7),
    value=st.sampled_from(["name", "mail", "card"]),
    column=st.sampled_from(["id", "name", "mail", "card", "note"]),
)
@relaxed
def test_a_value_that_is_put_back_into_any_column_is_found(
    way: Any, row: int, person: int, value: str, column: str
) -> None:
    source = {name: [one[name] for one in PEOPLE] for name in PEOPLE[0]}
    known = ValueIndex()
    masker = TableMasker(PUT_BACK_RULES, KEYS, PatternFinder(), collect=known)
    masked = {name: list(cells) for name, cells in masker.mask_columns(source).items()}
    clean = Verifier(PUT_BACK_RULES, known, PatternFinder(), masker=masker)
    clean.check_batch(source, masked)
    clean.report().check()

    masked[column][row] = way(PEOPLE[person][value])
    verifier = Verifier(PUT_BACK_RULES, known, PatternFinder(), masker=masker)
    verifier.check_batch(source, masked)
    report = verifier.report()
    assert not report.verified
    assert any(leak.column == column and row in leak.rows for leak in report.leaks)
    with pytest.raises(ApprovalsError) as refusal:
        report.check()
    assert "canary" not in str(refusal.value).lower()
    assert PEOPLE[person]["card"] not in str(refusal.value)
