from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_approvals.core.errors import InvalidRequestError, VerificationError
from airflow_approvals.core.expressions import expression_variables
from airflow_approvals.core.model import Action, Evidence, from_json, to_json
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.operators import Fake, Generalise, Mask, Operator, Replace, ShiftDate
from airflow_approvals.pii.masking.rules import ColumnRule, LeafRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.tables import TableMasker
from airflow_approvals.pii.verify import Verifier
from airflow_approvals.pii.verify_report import Found, VerifyReport
from tests.core.test_policy_explain import SNAPSHOT
from tests.pii.mask_samples import KEYS, OTHER_KEYS, PatternFinder, customer_rules, relaxed

CARD = 4111111111111111
ROWS = 12
Table = dict[str, list[Any]]


def source() -> Table:
    names = [f"{first} Canary{chr(97 + row)}" for row, first in enumerate(NAMES)]
    mails = [f"{first.lower()}.{row}@canary.org" for row, first in enumerate(NAMES)]
    cards = [CARD + row for row in range(ROWS)]
    notes = zip(mails, cards, strict=True)
    payloads = enumerate(zip(names, mails, strict=True))
    return {
        "id": list(range(ROWS)),
        "name": names,
        "email": mails,
        "card": [*cards[:-1], None],
        "born": [date(1950 + row, 1 + row, 2 + row) for row in range(ROWS)],
        "note": [f"Mail {mail}, card {card}, born long ago. Mr. Fox" for mail, card in notes],
        "payload": [
            json.dumps({"who": name, "mail": [mail], "n": row, "f": "plain words"})
            for row, (name, mail) in payloads
        ],
        "secret": [f"hunter-{row}-two" for row in range(ROWS)],
    }


NAMES = (
    "Ada",
    "Alan",
    "Grace",
    "Edsger",
    "Barbara",
    "Donald",
    "Tony",
    "Ken",
    "Dennis",
    "Niklaus",
    "John",
    "Frances",
)


def masked(rules: MaskingRules | None = None, table: Table | None = None) -> tuple[Table, ValueIndex]:
    known = ValueIndex()
    made = TableMasker(rules or customer_rules(), KEYS, PatternFinder(), collect=known).mask_columns(
        table or source()
    )
    return {name: list(values) for name, values in made.items()}, known


def verify(
    output: Mapping[str, Sequence[Any]],
    known: ValueIndex,
    rules: MaskingRules | None = None,
    table: Table | None = None,
    keys: KeyRing | None = KEYS,
) -> VerifyReport:
    rules = rules or customer_rules()
    masker = TableMasker(rules, keys, PatternFinder()) if keys else None
    verifier = Verifier(rules, known, PatternFinder(), masker=masker)
    verifier.check_batch(table or source(), output)
    return verifier.report()


@pytest.mark.parametrize("keys", [KEYS, None], ids=["with keys", "without keys"])
def test_what_is_masked_cleanly_raises_no_alarm(keys: KeyRing | None) -> None:
    report = verify(*masked(), keys=keys)
    assert report.leaks == ()
    assert report.broken == ()
    assert (report.verified, report.residual, report.rows) == (True, 0, ROWS)
    assert report.values_searched > 4 * ROWS
    report.check()


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it was": lambda value: value,
    "upper case": str.upper,
    "in a longer text": lambda value: f"before it ({value}), and after",
    "full width": lambda value: "".join(
        chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in value
    ),
    "invisible signs": lambda value: "\u200b".join(value),
    "accents": lambda value: value.replace("a", "a\u0301").replace("e", "\u00e9"),
    "other separators": lambda value: re.sub(r"[\W_]+", " - ", value),
    "a json leaf": lambda value: json.dumps({"a": [{"b": f"x {value} y"}]}),
    "an escaped json leaf": lambda value: json.dumps([value]).replace("a", "\\u0061").replace("4", "\\u0034"),
    "a json key": lambda value: json.dumps({value: 1}),
    "a json key that comes twice": lambda value: f'{{"a": {json.dumps(value)}, "a": "b"}}',
    "json within json": lambda value: json.dumps({"a": json.dumps({"b": value})}),
}
PLANTED = {
    "name": "Grace Canaryc",
    "email": "grace.2@canary.org",
    "card": str(CARD + 2),
    "spaced card": "4111 1111 1111 1113",
    "dropped": "hunter-2-two",
    "found in text only": "Mr. Fox",
    "date": "1952-03-04",
}
TEXT_COLUMNS = ("name", "email", "card", "note", "payload")


@pytest.mark.parametrize("value", PLANTED.values(), ids=PLANTED.keys())
@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("keys", [KEYS, None], ids=["with keys", "without keys"])
def test_every_value_that_is_put_back_is_found(
    value: str, spell: Callable[[str], str], keys: KeyRing | None
) -> None:
    clean, known = masked()
    for column in TEXT_COLUMNS:
        for row in (ROWS - 2,):
            output = {name: list(values) for name, values in clean.items()}
            output[column][row] = spell(value)
            report = verify(output, known, keys=keys)
            found = [leak for leak in report.leaks if leak.found is Found.SURVIVES]
            assert [(leak.column, leak.rows) for leak in found] == [(column, (row,))]
            assert not report.verified
            assert report.columns == (column,)
            with pytest.raises(VerificationError, match=f"column '{column}'.*rows {row}"):
                report.check()


def test_values_put_back_into_columns_of_other_types_are_found() -> None:
    clean, known = masked()
    for column, value, entity in (("id", CARD + 2, "CREDIT_CARD"), ("born", date(1952, 3, 4), "DATE_TIME")):
        output = {**clean, column: [value, *clean[column][1:]]}
        report = verify(output, known)
        assert (column, entity, Found.SURVIVES) in {
            (one.column, one.entity_type, one.found) for one in report.leaks
        }
        assert (column, Found.ALTERED) in {(one.column, one.found) for one in report.leaks}


@relaxed
@given(
    row=st.integers(0, ROWS - 2),
    column=st.sampled_from(TEXT_COLUMNS),
    origin=st.sampled_from(("name", "email", "card", "secret")),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_a_value_is_found_within_any_text(
    row: int, column: str, origin: str, before: str, after: str
) -> None:
    clean, known = CLEAN
    text = f"{before} {source()[origin][row]} {after}"
    output = {**clean, column: [*clean[column][:row], text, *clean[column][row + 1 :]]}
    leaks = verify(output, known).leaks
    assert (column, Found.SURVIVES) in {(leak.column, leak.found) for leak in leaks if row in leak.rows}


CLEAN = masked()


def test_a_cell_that_was_not_masked_is_found_even_if_it_is_too_short_to_search() -> None:
    table = {**source(), "name": ["Li", *source()["name"][1:]]}
    clean, known = masked(table=table)
    output = {**clean, "name": ["Li", *clean["name"][1:]]}
    found = {leak.found for leak in verify(output, known, table=table, keys=None).leaks}
    assert found == {Found.UNCHANGED}
    assert verify(output, known, table=table).values_too_short > 0


def test_with_the_keys_a_cell_that_is_not_what_masking_makes_of_it_is_found() -> None:
    clean, known = masked()
    output = {**clean, "email": [clean["email"][1], *clean["email"][1:]]}  # another row's fake
    assert not verify(output, known).verified
    assert verify(clean, known, keys=OTHER_KEYS).residual > 0


def test_what_was_found_before_masking_and_is_found_after_is_residual() -> None:
    clean, known = masked(table={**source(), "note": ["nothing"] * ROWS})
    table = {**source(), "note": ["new@unseen.org"] * ROWS}
    output = {**clean, "note": ["new@unseen.org"] * ROWS}
    leaks = verify(output, known, table=table).leaks
    assert {(leak.column, leak.entity_type, leak.found) for leak in leaks} >= {
        ("note", "EMAIL_ADDRESS", Found.RESCAN)
    }


def test_what_is_left_alone_is_scanned_as_well_unless_the_rule_says_what_may_stay() -> None:
    table: Table = {"contact": ["new@unseen.org", "-"]}
    for leave, residual in ((), 1), (("EMAIL_ADDRESS", "URL"), 0), (("*",), 0):
        rules = MaskingRules(
            columns=(ColumnRule(column="contact", treatment=Treatment.LEAVE, leave_entities=leave),)
        )
        assert verify(table, ValueIndex(), rules=rules, table=table).residual == residual


MADE_UP: list[tuple[Operator, str, list[Any]]] = [
    (Fake(domain="customers"), "PHONE_NUMBER", ["555-0100", "555-0101", "555-0102"]),
    (ShiftDate(domain="customers", most_days=1), "DATE_TIME", [date(2020, 1, day) for day in range(1, 29)]),
    (Generalise(to="month"), "DATE_TIME", [date(2020, 1, 1), date(2020, 1, 2)]),
    (Generalise(to="year"), "DATE_TIME", ["2020", "2021-03-04", "2021"]),
    (Mask(keep_last=4), "CREDIT_CARD", ["4111 1111 1111 1111", "1111"]),
]


@pytest.mark.parametrize(("operator", "entity", "values"), MADE_UP)
def test_what_operators_make_up_may_by_chance_be_somebody_elses_value(
    operator: Operator, entity: str, values: list[Any]
) -> None:
    rules = MaskingRules(
        columns=(
            ColumnRule(column="id", treatment=Treatment.LEAVE),
            ColumnRule(column="x", treatment=Treatment.CELL, entity_type=entity, operator=operator),
        ),
        subject_column="id",
    )
    table: Table = {"id": list(range(len(values))), "x": values}
    output, known = masked(rules, table)
    assert verify(output, known, rules=rules, table=table).leaks == ()


def with_first(table: Table, column: str, value: Any) -> Table:
    return {**table, column: [value, *table[column][1:]]}


def with_last(table: Table, column: str, value: Any) -> Table:
    return {**table, column: [*table[column][:-1], value]}


Break = Callable[[Table], Table]
BREAKS: dict[str, tuple[Break, str]] = {
    "a column too many": (lambda table: {**table, "secret": ["x"] * ROWS}, "columns of the output"),
    "a column missing": (lambda table: {"id": table["id"]}, "columns of the output"),
    "another order": (lambda table: dict(reversed(table.items())), "columns of the output"),
    "a null lost": (lambda table: with_last(table, "card", "x"), "'card' has nulls"),
    "a null more": (lambda table: with_first(table, "note", None), "'note' has nulls"),
    "two made one": (lambda table: with_first(table, "name", table["name"][1]), "'name' does not join"),
    "one made two": (lambda table: with_first(table, "name", "PERSON_" + "0" * 24), "'name' does not join"),
}


@pytest.mark.parametrize(("break_it", "sentence"), BREAKS.values(), ids=BREAKS.keys())
def test_a_promise_about_the_whole_that_does_not_hold_is_named(break_it: Break, sentence: str) -> None:
    table = {**source(), "name": [*source()["name"][:-1], source()["name"][0]]}
    clean, known = masked(table=table)
    report = verify(break_it(clean), known, table=table, keys=None)
    assert not report.verified
    assert any(sentence in broken for broken in report.broken)


def test_rows_that_do_not_belong_together_are_refused() -> None:
    clean, known = masked()
    with pytest.raises(InvalidRequestError):
        verify({name: values[1:] for name, values in clean.items()}, known)


def test_nothing_checked_is_nothing_verified() -> None:
    assert not Verifier(customer_rules(), ValueIndex(), PatternFinder()).report().verified


def test_the_report_is_what_a_policy_asks_for() -> None:
    clean, known = masked()
    for output, verified in ((clean, True), ({**clean, "note": source()["note"]}, False)):
        report = verify(output, known)
        evidence = report.to_evidence()
        assert from_json(VerifyReport, to_json(report)) == report
        about = Evidence(datasets=(SNAPSHOT,), pii={**evidence, "dataset_sha256": SNAPSHOT.sha256})
        pii = expression_variables(Action(kind="export"), about, [])["pii"]
        assert pii["scanned"] is True
        assert pii["verified"] is verified
        assert pii["residual"] == report.residual
        assert pii["entities"] == report.entities
        assert pii["columns"] == list(report.columns)


def test_no_value_is_ever_in_a_report_an_error_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, known = masked()
    table = source()
    del table["secret"]
    report = verify(table, known)
    assert set(report.columns) == {"name", "email", "card", "born", "note", "payload"}
    with pytest.raises(VerificationError) as caught:
        report.check()
    everything = f"{report!r} {report.to_evidence()} {caught.value} {caplog.text} {known!r}".lower()
    for canary in ("canary", "grace", "4111", "hunter", "1952"):
        assert canary not in everything


def test_leaves_with_rules_of_their_own_are_computed_again() -> None:
    phone = LeafRule(path="/phones/*", entity_type="PHONE_NUMBER", operator=Fake(domain="customers"))
    rules = MaskingRules(
        columns=(ColumnRule(column="x", treatment=Treatment.LEAVES, leaves=(phone, LeafRule(path="/id"))),)
    )
    numbers = [[f"+1-766-373-{row:04d}x12", f"555-{row:04d}"] for row in range(200)]
    table: Table = {"x": [json.dumps({"phones": pair, "id": 1}) for pair in numbers]}
    output, known = masked(rules, table)
    assert verify(output, known, rules=rules, table=table).leaks == ()
    unmasked = {"x": [*output["x"][:-1], table["x"][-1]]}
    found = {leak.found for leak in verify(unmasked, known, rules=rules, table=table).leaks}
    assert found == {Found.UNCHANGED, Found.SURVIVES}
    other = {"x": [*output["x"][:-1], output["x"][0]]}
    assert {leak.found for leak in verify(other, known, rules=rules, table=table).leaks} >= {Found.ALTERED}
    shorter = {"x": [*output["x"][:-1], '{"phones": [], "id": 1}']}
    assert {leak.found for leak in verify(shorter, known, rules=rules, table=table).leaks} == {Found.ALTERED}
    touched = {"x": [output["x"][0].replace('"id": 1', '"id": 2'), *output["x"][1:]]}
    assert {leak.found for leak in verify(touched, known, rules=rules, table=table).leaks} == {Found.ALTERED}


def test_a_date_may_stand_in_what_is_left_alone_and_a_name_may_not() -> None:
    known = ValueIndex()
    known.add("2021-03-04", "DATE_TIME")
    rules = MaskingRules(
        columns=(
            ColumnRule(column="at", treatment=Treatment.LEAVE, leave_entities=("DATE_TIME",)),
            ColumnRule(column="tree", treatment=Treatment.LEAVES, leaves=(LeafRule(path="/at"),)),
        )
    )
    table: Table = {"at": ["2021-03-04"], "tree": ['{"at": "2021-03-04"}']}
    assert verify(table, known, rules=rules, table=table).verified
    known = ValueIndex()
    known.add("Ada Lovelace", "PERSON")
    table = {"at": ["Ada Lovelace"], "tree": ['{"at": "ada lovelace"}']}
    assert verify(table, known, rules=rules, table=table).columns == ("at", "tree")


# --- the index ----------------------------------------------------------------------------------------------


ADDRESS = re.compile(r"\s*\d{1,3}(\.\d{1,3}){3}\s*")


@relaxed
@given(values=st.lists(st.text(min_size=1, max_size=12), max_size=6), hay=st.text(max_size=60))
def test_the_index_finds_exactly_what_a_plain_search_finds(values: list[str], hay: str) -> None:
    from airflow_approvals.pii.masking.forms import words_of

    index = ValueIndex()
    for value in values:
        index.add(value, "X")
    words = words_of(hay)
    joined = {
        "".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1)
    }
    plain = (words_of(value) for value in values if not ADDRESS.fullmatch(value))
    wanted = {"".join(form) for form in plain} & joined
    found = {"".join(words[first : last + 1]) for first, last, _ in index.find(words)}
    assert found == {form for form in wanted if len(form) >= 5}


def test_a_number_with_a_point_is_no_leak_of_the_same_digits_without() -> None:
    index = ValueIndex()
    index.add("123456", "CODE")
    index.add("98.7654", "AMOUNT")
    assert not list(index.find_in_text("1234.56"))
    assert list(index.find_in_text("paid 1234 56")) == ["CODE"]
    assert list(index.find_in_text("98.7654")) == ["AMOUNT"]
    assert list(index.find_in_text("4111111111.111111")) == []


@pytest.mark.parametrize("text", ["10.0.39.16", "host 10.0.39.16:80", "10-0-39-16", "1.10.0.39.16"])
def test_an_address_is_found_by_its_four_numbers_and_not_in_a_number_of_the_same_digits(text: str) -> None:
    index = ValueIndex()
    index.add("10.0.39.16", "IP_ADDRESS")
    assert list(index.find_in_text(text)) == ["IP_ADDRESS"]
    assert list(index.find_in_text("1003916")) == []
    assert list(index.find_in_text("10.0.391.6")) == []
    index.add("212.555.01.87", "PHONE_NUMBER")  # is no address, though it looks like one
    assert list(index.find_in_text("2125550187")) == ["PHONE_NUMBER"]


def test_an_index_cannot_be_taken_to_a_process_where_it_would_find_nothing() -> None:
    with pytest.raises(TypeError, match="collect the values again"):
        pickle.dumps(ValueIndex())


def test_a_hundred_thousand_values_need_a_few_megabytes() -> None:
    index = ValueIndex()
    for number in range(100_000):
        index.add(f"person number {number:06d}", "PERSON")
        index.add("always the same", "PERSON")
    assert len(index) == 100_001
    assert index._hashes.itemsize * len(index._hashes) < 1_000_000
    assert [entity for _, _, entity in index.find(["x", "person", "number", "099999"])] == ["PERSON"]


def test_changed_rules_cannot_be_slipped_in() -> None:
    clean, known = masked()
    rules = customer_rules()
    loose = tuple(
        replace(rule, operator=Replace()) if rule.column == "name" else rule for rule in rules.columns
    )
    assert not verify(clean, known, rules=replace(rules, columns=loose)).verified
