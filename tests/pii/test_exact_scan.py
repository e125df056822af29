from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.core.errors import FindingsDifferError
from airflow_approvals.pii.cells import texts_of_batch
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.engine import PresidioEngine
from airflow_approvals.pii.exact import ExactEngine, find_obstacle
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.prefilter import build_prefilter
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.self_check import SAMPLE, check_sample, check_text
from tests.pii.customers import customers

WORDS = ("email", "phone number", "ssn", "card", "iban", "date of birth", "passport", "ip", "driver license")


def _presidio(scanner: Scanner, text: str, context: tuple[str, ...]) -> set[Span]:
    results = scanner.analyzer.analyze(text, "en", context=list(context))
    return {Span(result.entity_type, result.start, result.end, result.score) for result in results}


def _differences(scanner: Scanner, texts: list[str], context: tuple[str, ...]) -> list[str]:
    found = scanner._engine.spans(texts, context)
    return [
        text
        for text, spans in zip(texts, found, strict=True)
        if set(spans) != _presidio(scanner, text, context)
    ]


def _mutated(text: str, dice: random.Random) -> str:
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(text) + 1)
        change = dice.randrange(7)
        if change == 0:
            text = (
                text[:place]
                + dice.choice(" \n\t.,;:-/\"'(){}[]@+#x\x0b\x1f\u00a0\u200b\uff11é")
                + text[place:]
            )
        elif change == 1:
            text = text[:place] + text[place + 1 :]
        elif change == 2:
            text = f"{dice.choice(WORDS)} {text}"
        elif change == 3:
            text = f"{text} {dice.choice(WORDS)}: {text[:place]}"
        elif change == 4:
            text = text.upper() if dice.random() < 0.5 else text.lower()
        elif change == 5:
            text = text[:place] + ". " + text[place:]
        else:
            text = text[place:] + text[:place]
    return text


@pytest.mark.parametrize("named", [True, False], ids=["column name as context", "no context"])
def test_every_cell_has_exactly_the_findings_of_presidio(scanner: Scanner, named: bool) -> None:
    batch = customers(40, seed=5).combine_chunks().to_batches()[0]
    for column in texts_of_batch(batch, typed=False):
        for group in column.groups:
            context = group.context if named else ()
            assert _differences(scanner, list(group.places), context) == []


def test_mutated_cells_have_exactly_the_findings_of_presidio(scanner: Scanner) -> None:
    dice = random.Random(3)  # noqa: S311
    rows = customers(40, seed=6).to_pylist()
    cells = [str(value) for row in rows for value in row.values() if value is not None]
    texts = [_mutated(dice.choice(cells), dice) for _ in range(400)]
    assert _differences(scanner, texts, ("field",)) == []


CONTEXTS = {
    "a word before": "driver license number A1234567",
    "a word after does not count": "A1234567 driver license",
    "unless the match begins in no keyword": "DE3978:597{0393605493 driver license: DE3978:59738",
    "a word too far": "license one two three four five six seven A1234567",
    "stop words and signs are not counted": 'license: { " the ( of ) and - it " A1234567',
    "an inflected word": "both licenses were A1234567 and phones (212) 555-0188",
    "a word inside a word": "duplicates A1234567",
}


@pytest.mark.parametrize("text", CONTEXTS.values(), ids=CONTEXTS.keys())
def test_context_words_count_as_in_presidio(scanner: Scanner, text: str) -> None:
    assert _differences(scanner, [text], ("field",)) == []


def test_the_fast_paths_are_in_use_with_the_default_configuration(scanner: Scanner) -> None:
    assert find_obstacle(scanner.analyzer, "en") is None
    assert scanner.path == "prefilter hyperscan, entities numpy"


@pytest.mark.parametrize("missing", ["hyperscan", "hyperscan re2"])
def test_without_a_prefilter_package_the_next_best_finds_the_same(
    scanner: Scanner, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing.split():
        monkeypatch.setitem(__import__("sys").modules, name, None)
    engine = ExactEngine(scanner.analyzer, "en")
    assert ("re2" in engine.path) == ("re2" not in missing)
    check_sample(engine, scanner.analyzer, "en")


@pytest.mark.parametrize("name", ["hyperscan", "re2"])
def test_a_prefilter_names_every_expression_that_matches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import regex

    if name == "re2":
        monkeypatch.setitem(__import__("sys").modules, "hyperscan", None)
    expressions = [
        (r"\bab(?=c)\b", 0), (r"(?<!x)y{2,300}", regex.I), (r"^q$", regex.M), (r"q$", 0), (r"(a)\1", 0),
        (r"\p{Lu}", 0), (r"(?:foo){e<=1}", 0), (r"[[a-z]--[b]]", regex.V1), (r"é", regex.I), (r"\mw", 0),
        (r"[^]x]z", 0), (r"\d{3}-\d", regex.I | regex.S),
    ]  # fmt: skip
    texts = [
        "abc",
        "yy",
        "xyy",
        "p\nq\nr",
        "q\n",
        "aa",
        "A",
        "fo",
        "a",
        "b",
        "word",
        "yz",
        "123-4",
        "",
        "]z",
        "xz",
    ]
    prefilter = build_prefilter(expressions)
    assert prefilter is not None
    assert prefilter.name == name
    for text in texts:
        named = prefilter.candidates(text)
        for number, (expression, flags) in enumerate(expressions):
            assert number in named or not regex.search(expression, text, flags=flags), (expression, text)


def test_spacys_own_entity_recogniser_takes_over_where_numpy_does_not_know_the_model(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ExactEngine(scanner.analyzer, "en")
    monkeypatch.setattr(engine._entities, "_moves", None)
    monkeypatch.setattr(engine._entities, "_vectors", None)
    check_sample(engine, scanner.analyzer, "en")


def _own_recognizer(analyzer: Any) -> None:
    from presidio_analyzer import EntityRecognizer

    class Own(EntityRecognizer):
        def load(self) -> None:
            pass

        def analyze(self, text: str, entities: list[str], nlp_artifacts: object) -> list[Any]:
            return []

    analyzer.registry.add_recognizer(Own(supported_entities=["OWN"]))


def _own_analyze(analyzer: Any) -> None:
    from presidio_analyzer import Pattern, PatternRecognizer

    class Own(PatternRecognizer):
        def analyze(self, *args: Any, **kwargs: Any) -> list[Any]:
            return []

    analyzer.registry.add_recognizer(Own(supported_entity="OWN", patterns=[Pattern("x", "x", 0.5)]))


def _own_enhancer(analyzer: Any) -> None:
    from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer

    class Own(LemmaContextAwareEnhancer):
        pass

    analyzer.context_aware_enhancer = Own()


def _own_pipe(analyzer: Any) -> None:
    analyzer.nlp_engine.nlp["en"].add_pipe("entity_ruler", before="ner")


OBSTACLES: dict[str, Callable[[Any], None]] = {
    "a recognizer of its own": _own_recognizer,
    "a pattern recognizer with an analyze of its own": _own_analyze,
    "a context enhancer of its own": _own_enhancer,
    "a pipe of its own": _own_pipe,
}


@pytest.mark.parametrize("change", OBSTACLES.values(), ids=OBSTACLES.keys())
def test_whatever_is_not_known_goes_through_presidio_itself(change: Callable[[Any], None]) -> None:
    scanner = Scanner()
    change(scanner.analyzer)
    assert find_obstacle(scanner.analyzer, "en") is not None
    assert isinstance(scanner._engine, PresidioEngine)


def test_a_pattern_recognizer_from_presidios_own_file_keeps_the_fast_path(tmp_path: Path) -> None:
    file = tmp_path / "recognizers.yaml"
    file.write_text(
        "supported_languages: [en]\nglobal_regex_flags: 26\nrecognizers:\n"
        "  - {name: EmailRecognizer, type: predefined}\n"
        "  - {name: Staff, type: custom, supported_entity: STAFF_ID, supported_language: en,\n"
        "     context: [staff], patterns: [{name: staff, regex: 'E-\\d{5}', score: 0.3}]}\n"
    )
    scanner = Scanner(ScanConfig(recognizers_conf=file))
    assert find_obstacle(scanner.analyzer, "en") is None
    texts = ["staff member E-12345 left", "E-12345", "mail a@example.com", "Anna Smith"]
    assert _differences(scanner, texts, ("note",)) == []
    scores = [one.score for one in scanner.scan_cells("note", texts)[0] if one.entity_type == "STAFF_ID"]
    assert scores == [pytest.approx(0.65)]


def test_a_difference_from_presidio_ends_the_scan_and_says_no_value(scanner: Scanner) -> None:
    engine = ExactEngine(scanner.analyzer, "en")
    text = "mail first.last@example.com"
    wrong = engine.spans([text], ("note",))[0][:-1]
    with pytest.raises(FindingsDifferError, match="differs from Presidio") as refused:
        check_text(scanner.analyzer, "en", text, ("note",), wrong, "column 'note'")
    assert "first.last" not in str(refused.value)


def test_exact_check_asks_presidio_about_so_many_texts_along_the_way() -> None:
    scanner = Scanner(ScanConfig(exact_check=12, batch_rows=10))
    batches = customers(60).to_batches()
    assert sum(found.checked for found in scanner.scan_batches(batches)) > 6


def test_the_self_check_covers_every_recognizer_that_presidio_has_by_default(scanner: Scanner) -> None:
    found = {span.entity_type for column, text in SAMPLE for span in _presidio(scanner, text, (column,))}
    assert scanner.entity_types - found <= {"ORGANIZATION"}
