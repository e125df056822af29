from __future__ import annotations

import copy
import json
import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa  # noqa: TID253
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_approvals.core.errors import InvalidRequestError, SchemaMismatchError, SourceUnreadableError
from airflow_approvals.core.model import from_json, to_json
from airflow_approvals.pii.cells import Gate
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.arrow import mask_batch, masked_schema
from airflow_approvals.pii.masking.encryption import decrypt
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.operators import (
    Fake,
    Generalise,
    Operator,
    Pseudonym,
    Redact,
    Replace,
    ShiftDate,
)
from airflow_approvals.pii.masking.rules import ColumnRule, LeafRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.spans import replace_regions, settle
from airflow_approvals.pii.masking.tables import TableMasker
from tests.pii.mask_samples import KEYS, OTHER_KEYS, PatternFinder, customer_rules, relaxed

CARD = 4111111111111111


def batch() -> pa.RecordBatch:
    """Return two people and a row of nulls."""
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "name": pa.array(["Ada Lovelace", "Turing, Alan", None]).dictionary_encode(),
            "email": pa.array(["ada@lovelace.org", "alan@turing.uk", None], pa.large_string()),
            "card": pa.array([CARD, 5500005555555559, None], pa.int64()),
            "born": pa.array([date(1815, 12, 10), date(1912, 6, 23), None], pa.date32()),
            "note": [
                "ada called, then Mr. Babbage. Lovelace's mail: ADA@lovelace.org; card 4111-1111 1111 1111",
                "nothing to see",
                None,
            ],
            "payload": [
                '{"who": "ada lovelace", "mail": ["x@y.org", {"to": "ada@lovelace.org"}], "n": 1.5, "ok": 1}',
                "not json but x@y.org",
                None,
            ],
            "secret": ["hunter22", "correct horse", None],
        }
    )


def mask(
    given_batch: pa.RecordBatch, rules: MaskingRules | None = None, keys: KeyRing = KEYS
) -> pa.RecordBatch:
    return mask_batch(TableMasker(rules or customer_rules(), keys, PatternFinder()), given_batch)


def one_column(values: Any, rule: ColumnRule) -> list[Any]:
    masker = TableMasker(MaskingRules(columns=(rule,)), KEYS, PatternFinder())
    made = mask_batch(masker, pa.RecordBatch.from_pydict({rule.column: values}))
    made.validate(full=True)
    found: list[Any] = made.column(0).to_pylist()
    return found


def test_schema_rows_order_and_nulls_are_kept_but_for_what_the_rules_say() -> None:
    before, after = batch(), mask(batch())
    after.validate(full=True)
    assert after.schema.names == ["id", "name", "email", "card", "born", "note", "payload"]
    changed = [field.name for field in after.schema if field.type != before.schema.field(field.name).type]
    assert changed == ["card"]
    assert after.column("id") == before.column("id")
    for name in after.schema.names:
        assert after.column(name).is_null().to_pylist() == before.column(name).is_null().to_pylist()


def test_the_input_is_never_changed() -> None:
    before, reference = batch(), batch()
    mask(before)
    assert before.equals(reference)
    columns = dict(batch().to_pydict())
    kept = copy.deepcopy(columns)
    TableMasker(customer_rules(), KEYS, PatternFinder()).mask_columns(columns)
    assert columns == kept


def test_a_rows_own_values_are_masked_in_its_texts_however_they_are_written() -> None:
    note, payload = (mask(batch()).column(name).to_pylist()[0] for name in ("note", "payload"))
    for leak in ("ada", "lovelace", "babbage", "4111", "1111", "y.org"):
        assert leak not in note.lower()
        assert leak not in payload.lower()
    assert ", then PERSON_" in note
    assert note.endswith("; card <CREDIT_CARD>")
    assert json.loads(payload) == {
        "who": "<PERSON>",
        "mail": ["<EMAIL_ADDRESS>", {"to": "<EMAIL_ADDRESS>"}],
        "n": 1.5,
        "ok": 1,
    }


def test_another_rows_values_are_masked_only_where_they_are_known_of_the_whole_dataset() -> None:
    rows = {"name": ["Ada Lovelace", "Alan"], "note": ["-", "ask ADA  LOVELACE."]}
    rules = MaskingRules(
        columns=(
            ColumnRule(column="name", treatment=Treatment.CELL, entity_type="PERSON", operator=Replace()),
            ColumnRule(column="note", treatment=Treatment.TEXT),
        )
    )
    known = ValueIndex()
    first = TableMasker(rules, KEYS, PatternFinder(), collect=known).mask_columns(rows)
    assert first["note"][1] == "ask ADA  LOVELACE."
    second = TableMasker(rules, KEYS, PatternFinder(), known=known).mask_columns(rows)
    assert second["note"][1] == "ask <PERSON>."


def test_the_same_person_joins_across_tables_and_runs_and_not_under_another_key() -> None:
    one, other = mask(batch()), mask(batch().slice(0, 1))
    assert one.column("name")[0].as_py() == other.column("name")[0].as_py()
    assert one.column("name")[0].as_py() != mask(batch(), keys=OTHER_KEYS).column("name")[0].as_py()


def test_what_was_encrypted_can_be_opened_with_the_key() -> None:
    assert decrypt(mask(batch()).column("card")[0].as_py(), KEYS, "customers") == str(CARD)


def test_masking_a_masked_text_again_changes_nothing() -> None:
    rule = ColumnRule(column="note", treatment=Treatment.TEXT)
    once = one_column(["x@y.org and Mr. Babbage"], rule)
    assert once == ["<EMAIL_ADDRESS> and <PERSON>"]
    assert one_column(once, rule) == once


class SecondSight(PatternFinder):
    """A finder that sees a name only beside a placeholder, as models do."""

    def find(self, texts: Any, context: tuple[str, ...], gate: Gate = Gate.ANYTHING) -> Any:
        found = dict(super().find(texts, context, gate))
        for text in found:
            for match in re.finditer(r"(\w+ )?<EMAIL_ADDRESS>( Miller)?", text):
                if "Miller" in match[0]:
                    found[text] = [Span("PERSON", match.start(), match.end(), 0.85)]
        return found


@pytest.mark.parametrize("treatment", [Treatment.TEXT, Treatment.LEAVES])
def test_what_is_seen_only_after_masking_is_masked_as_well(treatment: Treatment) -> None:
    rule = ColumnRule(column="note", treatment=treatment)
    known = ValueIndex()
    masker = TableMasker(MaskingRules(columns=(rule,)), KEYS, SecondSight(), collect=known)
    made = masker.mask_columns({"note": ["ask x@y.org Miller, now", "Miller is out"]})["note"]
    assert made == ["<PERSON> <EMAIL_ADDRESS> <PERSON>, now", "Miller is out"]
    assert len(known) == 1


def test_rules_are_json_without_keys_and_have_a_digest() -> None:
    rules = customer_rules()
    assert from_json(MaskingRules, to_json(rules)) == rules
    assert from_json(MaskingRules, json.loads(json.dumps(to_json(rules)))).digest == rules.digest
    assert len(rules.digest) == 64


def test_every_distinct_text_is_looked_at_once() -> None:
    finder = PatternFinder()
    rule = ColumnRule(column="note", treatment=Treatment.TEXT)
    masker = TableMasker(MaskingRules(columns=(rule,)), KEYS, finder)
    masker.mask_columns({"note": ["same text"] * 50 + [None]})
    assert finder.looked_at == [(("note",), "same text")]


def test_the_counts_tell_columns_and_types_and_nothing_else() -> None:
    masker = TableMasker(customer_rules(), KEYS, PatternFinder())
    mask_batch(masker, batch())
    assert masker.rows == 3
    assert masker.masked["name"] == {"PERSON": 2}
    assert masker.masked["payload"] == {"PERSON": 1, "EMAIL_ADDRESS": 3}
    assert "id" in masker.masked
    assert "lovelace" not in str(masker.masked).lower()


# --- types -----------------------------------------------------------------------------------------------

MORNING = datetime(2020, 5, 17, 8, 9)  # noqa: DTZ001  # a column may have no zone
KEPT: list[tuple[Any, Operator, str]] = [
    (pa.array([date(2020, 5, 17)], pa.date32()), Generalise(to="year"), "2020-01-01"),
    (pa.array([date(2020, 5, 17)], pa.date64()), Generalise(to="month"), "2020-05-01"),
    (pa.array([MORNING], pa.timestamp("us")), Generalise(to="month"), "2020-05-01 00:00:00"),
    (pa.array([MORNING], pa.timestamp("ns", "UTC")), Generalise(to="year"), "2020-01-01 00:00:00+00:00"),
]  # fmt: skip


@pytest.mark.parametrize(("array", "operator", "expected"), KEPT)
def test_dates_are_made_coarser_in_their_own_type(array: Any, operator: Operator, expected: str) -> None:
    rule = ColumnRule(column="x", treatment=Treatment.CELL, entity_type="DATE_TIME", operator=operator)
    assert [str(value) for value in one_column(array, rule)] == [expected]


def test_whole_numbers_stay_whole_numbers_under_fakes() -> None:
    rule = ColumnRule(
        column="x", treatment=Treatment.CELL, entity_type="CREDIT_CARD", operator=Fake(domain="customers")
    )
    made = one_column(pa.array([CARD, None], pa.int64()), rule)
    assert isinstance(made[0], int)
    assert made[0] != CARD
    assert made[1] is None


NEED_BECOMES = [
    pa.array([1]), pa.array([1.5]), pa.array([Decimal("1.50")]), pa.array([True]),
    pa.array([date(2020, 1, 1)]), pa.array([b"x"]), pa.array([["a"]]), pa.array([{"a": 1}]),
]  # fmt: skip


@pytest.mark.parametrize("array", NEED_BECOMES, ids=lambda array: str(array.type))
def test_a_column_becomes_text_only_where_its_rule_says_so(array: Any) -> None:
    rule = ColumnRule(
        column="x", treatment=Treatment.CELL, entity_type="ID", operator=Pseudonym(domain="customers")
    )
    with pytest.raises(InvalidRequestError, match=r"column 'x'.*becomes: string"):
        one_column(array, rule)
    told = ColumnRule(
        column="x",
        treatment=Treatment.CELL,
        entity_type="ID",
        operator=Pseudonym(domain="customers"),
        becomes="string",
    )
    assert one_column(array, told)[0].startswith("ID_")


NESTED = {
    "struct": (pa.array([{"a": "x@y.org", "n": 4111111111111111}]), [{"a": "<EMAIL_ADDRESS>", "n": None}]),
    "list": (pa.array([["x@y.org", "fine", None]]), [["<EMAIL_ADDRESS>", "fine", None]]),
    "list of structs": (pa.array([[{"a": "Mr. Fox"}], []]), [[{"a": "<PERSON>"}], []]),
    "map": (
        pa.array([[("x@y.org", "Mr. Fox")]], pa.map_(pa.string(), pa.string())),
        [[("<EMAIL_ADDRESS>", "<PERSON>")]],
    ),
    "bytes in a list": (pa.array([[b"x@y.org"]]), [[b"<EMAIL_ADDRESS>"]]),
}


@pytest.mark.parametrize(("array", "expected"), NESTED.values(), ids=NESTED.keys())
def test_leaves_of_nested_types_are_masked_in_their_type(array: Any, expected: list[Any]) -> None:
    assert one_column(array, ColumnRule(column="x", treatment=Treatment.LEAVES)) == expected


JSON_TEXTS = {
    "keys that are values": (
        '{"x@y.org": 1, "z@y.org": 2}',
        '{"<EMAIL_ADDRESS>": 1, "<EMAIL_ADDRESS> 2": 2}',
    ),
    "numbers": ('{"card": 4111111111111111, "n": 7}', '{"card": "<CREDIT_CARD>", "n": 7}'),
    "untouched as written": ('{"a":1.50,  "b": "fine"}', '{"a":1.50,  "b": "fine"}'),
    "escapes": ('["x\\u0040y.org", "\\u00fc"]', '["<EMAIL_ADDRESS>", "\\u00fc"]'),
    "broken": ('{"a": "x@y.org"', '{"a": "<EMAIL_ADDRESS>"'),
    "a scalar": ('"x@y.org"', '"<EMAIL_ADDRESS>"'),
    "too deep": ("[" * 100_000 + "x@y.org", "[" * 100_000 + "<EMAIL_ADDRESS>"),
}


@pytest.mark.parametrize(("text", "expected"), JSON_TEXTS.values(), ids=JSON_TEXTS.keys())
def test_json_text_is_masked_leaf_by_leaf_and_stays_json(text: str, expected: str) -> None:
    assert one_column([text], ColumnRule(column="x", treatment=Treatment.LEAVES)) == [expected]


def test_a_leaf_with_a_rule_of_its_own_is_masked_or_left_whatever_is_found() -> None:
    rule = ColumnRule(
        column="x",
        treatment=Treatment.LEAVES,
        leaves=(
            LeafRule(path="/names/*", entity_type="PERSON", operator=Redact()),
            LeafRule(path="/support"),
        ),
    )
    text = '{"names": ["unseen", "by models"], "support": "help@y.org", "mail": "x@y.org"}'
    assert one_column([text], rule) == [
        '{"names": ["", ""], "support": "help@y.org", "mail": "<EMAIL_ADDRESS>"}'
    ]


# --- refusals ----------------------------------------------------------------------------------------------


def test_a_column_without_a_rule_or_a_rule_without_a_column_is_refused() -> None:
    with pytest.raises(SchemaMismatchError, match=r"without a masking rule: numbers \[9\]"):
        masked_schema(batch().append_column("new", pa.array([1, 2, 3])).schema, customer_rules())
    with pytest.raises(SchemaMismatchError, match=r"without a column: \['secret'\]"):
        masked_schema(batch().drop_columns("secret").schema, customer_rules())


@pytest.mark.parametrize(
    "make",
    [
        lambda: ColumnRule(column="x", treatment=Treatment.CELL),
        lambda: ColumnRule(column="x", treatment=Treatment.CELL, operator=Redact()),
        lambda: ColumnRule(column="x", treatment=Treatment.LEAVE, operator=Redact()),
        lambda: ColumnRule(
            column="x", treatment=Treatment.CELL, entity_type="A", operator=Redact(), becomes="int"
        ),
        lambda: ColumnRule(column="x", treatment=Treatment.TEXT, least_score=1.5),
        lambda: MaskingRules(columns=(ColumnRule(column="x", treatment=Treatment.LEAVE),) * 2),
        lambda: MaskingRules(
            columns=(
                ColumnRule(
                    column="x",
                    treatment=Treatment.CELL,
                    entity_type="A",
                    operator=ShiftDate(domain="customers"),
                ),
            )
        ),
        lambda: MaskingRules(columns=(), subject_column="id"),
    ],
)  # fmt: skip
def test_rules_that_contradict_themselves_are_refused(make: Any) -> None:
    with pytest.raises(InvalidRequestError):
        make()


@pytest.mark.parametrize(
    "array", [pa.array([1]), pa.array([b"x"]), pa.array([["x"]])], ids=lambda a: str(a.type)
)
def test_pieces_of_what_is_no_text_cannot_be_masked(array: Any) -> None:
    with pytest.raises(InvalidRequestError, match="column 'x'"):
        one_column(array, ColumnRule(column="x", treatment=Treatment.TEXT))


def test_bytes_in_which_nothing_can_be_found_are_refused_without_showing_them() -> None:
    with pytest.raises(SourceUnreadableError, match="column 'x'") as caught:
        one_column(pa.array([[b"\xff canary-7f3a"]]), ColumnRule(column="x", treatment=Treatment.LEAVES))
    assert "canary" not in str(caught.value)


# --- overlaps ----------------------------------------------------------------------------------------------

Place = tuple[str, int, int, float]
places = st.tuples(st.sampled_from("AB"), st.integers(0, 30), st.integers(1, 10), st.floats(0, 1))


@relaxed
@given(drawn=st.lists(places, max_size=8))
def test_no_character_of_any_span_is_left_and_none_outside_is_lost(
    drawn: list[tuple[str, int, int, float]],
) -> None:
    text = "".join(chr(ord("a") + place % 26) for place in range(40))
    spans = [Span(kind, start, start + length, score) for kind, start, length, score in drawn]
    regions = settle(spans, text)
    covered = {place for span in spans for place in range(span.start, span.end)}
    assert sorted(place for one in regions for place in range(one.start, one.end)) == sorted(covered)
    masked, places = replace_regions(text, regions, lambda piece, region: "")
    assert places == []
    assert masked == "".join(sign for place, sign in enumerate(text) if place not in covered)


def test_the_longest_span_names_the_region_and_neighbours_of_one_type_join() -> None:
    text = "Ada Lovelace at x@y.org"
    spans = [
        Span("URL", 18, 23, 1.0),
        Span("EMAIL_ADDRESS", 16, 23, 0.5),
        Span("PERSON", 0, 3, 0.8),
        Span("PERSON", 4, 12, 0.9),
    ]
    assert [(one.entity_type, one.start, one.end) for one in settle(spans, text)] == [
        ("PERSON", 0, 12),
        ("EMAIL_ADDRESS", 16, 23),
    ]


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (1, 9)])
def test_a_span_outside_its_text_is_refused(start: int, end: int) -> None:
    with pytest.raises(InvalidRequestError, match="not within its text"):
        settle([Span("PERSON", start, end, 1.0)], "short")
