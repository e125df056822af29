from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.phones import PhoneScan, is_phone_recognizer
from airflow_approvals.pii.scanner import Scanner
from tests.pii.customers import customers

WRITTEN = {
    "national": "(212) 555-0188",
    "international": "+44 20 7946 0958",
    "with what is dialled before": "011 49 30 901820",
    "zeros behind the plus sign": "+001-598-862-0346x64856",
    "an extension": "212-456-7890 ext. 123",
    "several": "030 901820, 0171 2345678 / +33 1 42 68 53 00",
    "one behind another's end": "212-555-0188 212-555-0189 x5 5550188",
    "a number of no country": "+999 212 555 0188",
    "as short as they get": "0168 1234, 0169 12345",
    "within other numbers": "1-212-555-0188-212-555-0189-3",
    "a page": "212-555 (0188) 212-555-0188",
    "a date": "12/05/2020 212-555-0188",
    "a time stamp": "2021-07-16 01:35",
    "beside letters": "abc2125550188 2125550188def",
    "many": " ".join(["212-555-0188"] * 40),
}


@pytest.fixture(scope="module")
def recognizer(scanner: Scanner) -> Any:
    recognizers = scanner.analyzer.registry.get_recognizers(language="en", all_fields=True)
    (found,) = [one for one in recognizers if is_phone_recognizer(one)]
    return found


def _presidios(recognizer: Any, text: str) -> set[Span]:
    found = recognizer.analyze(text, ["PHONE_NUMBER"])
    return {Span(one.entity_type, one.start, one.end, one.score) for one in found}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN.keys())
def test_numbers_are_found_where_presidio_finds_them(recognizer: Any, text: str) -> None:
    assert set(PhoneScan(recognizer).spans(text)) == _presidios(recognizer, text)


def test_a_text_with_more_pieces_than_the_matcher_tries_is_left_to_it(
    recognizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_approvals.pii.phones.MANY_PIECES", 3)
    text = "212-555-0188 1.2.3.4 212-555-0189"
    assert set(PhoneScan(recognizer).spans(text)) == _presidios(recognizer, text)


def test_whatever_is_dialled_before_and_behind_a_number_it_is_read_as_presidio_reads_it(
    recognizer: Any,
) -> None:
    dice = random.Random(5)  # noqa: S311
    scan = PhoneScan(recognizer)
    numbers = [number for number in customers(80, seed=15)["phone"].to_pylist() if number]
    before = ("", "00", "011", "+", "0", "+44", "49 ", "33", "(0)", "0049", "+1 ", "1-", "0 171 ", "+0")
    between = (" ", "/", "-", ", ", " x", " ext. ", "+", "(", "..", "0")
    for _ in range(700):
        first, second = dice.sample(numbers, 2)
        text = dice.choice(before) + first + dice.choice(between) + second[: dice.randint(0, 9)]
        if dice.random() < 0.3:
            text = "".join(dice.choice("0123456789+-/(). x") for _ in range(dice.randint(4, 24)))
        assert set(scan.spans(text)) == _presidios(recognizer, text), text
