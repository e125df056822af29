from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from airflow_approvals.pii.named_entities import _features
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.sentence_starts import SentenceStarts
from airflow_approvals.pii.token_vectors import TokenVectors
from airflow_approvals.pii.tokenizing import FrequentWords
from tests.pii.customers import customers

LONG_AND_SHORT = (
    "One. Two. Three.",
    "x",
    "She said that he, whom nobody had asked, left. Then it rained; nobody minded.",
    'He asked "Why?" and left\n\nNo answer came. "Because!"',
    "Buy 3 kg of apples, 2 l of milk and call +1 (212) 555-0188. Thanks",
    "! ? . , ; :",
    "   blanks   and\ttabs.   Another  one. ",
)


@pytest.fixture(scope="module")
def nlp(scanner: Scanner) -> Any:
    engine: Any = scanner.analyzer.nlp_engine
    return engine.nlp["en"]


def _found(nlp: Any, texts: list[str]) -> tuple[list[list[bool]], list[int]]:
    vectors = TokenVectors.of(nlp.get_pipe("tok2vec").model)
    starts = SentenceStarts.of(nlp.get_pipe("parser"))
    assert vectors is not None
    assert starts is not None
    features = _features([nlp.make_doc(text) for text in texts], vectors.columns)
    distinct, which = vectors.encode_distinct(features.columns, features.lengths)
    found, doubtful = starts.find(distinct, which, features.lengths)
    return [part.tolist() for part in np.split(found, np.cumsum(features.lengths)[:-1])], doubtful


def _of_spacy(nlp: Any, texts: list[str]) -> list[list[bool]]:
    docs = [nlp.make_doc(text) for text in texts]
    docs = list(nlp.get_pipe("parser").pipe(nlp.get_pipe("tok2vec").pipe(docs)))
    return [[bool(token.is_sent_start) for token in doc] for doc in docs]


def test_sentences_start_where_spacys_parser_says(nlp: Any) -> None:
    dice = random.Random(4)  # noqa: S311
    rows = customers(60, seed=12).to_pylist()
    cells = [str(value) for row in rows for value in row.values() if value]
    words = " ".join(cells).split()
    shuffled = [" ".join(dice.sample(words, dice.randint(3, 30))) for _ in range(150)]
    texts = [*LONG_AND_SHORT, *cells, *shuffled]
    found, doubtful = _found(nlp, texts)
    expected = _of_spacy(nlp, texts)
    wrong = {number for number in range(len(texts)) if found[number] != expected[number]}
    assert wrong <= set(doubtful)
    assert len(doubtful) < len(texts) / 50
    assert sum(sum(starts) > 1 for starts in expected) > 100


def test_the_answer_does_not_depend_on_what_else_is_parsed(nlp: Any) -> None:
    texts = [*LONG_AND_SHORT, *filter(None, customers(20, seed=13)["notes"].to_pylist())]
    together, _ = _found(nlp, texts)
    assert [_found(nlp, [text])[0][0] for text in texts] == together


def test_a_parser_of_another_kind_is_left_to_spacy(nlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = nlp.get_pipe("parser")
    monkeypatch.setitem(parser.cfg, "beam_width", 4)
    assert SentenceStarts.of(parser) is None


def test_words_that_are_kept_are_cut_up_as_they_always_were(nlp: Any) -> None:
    texts = [str(value) for row in customers(30, seed=14).to_pylist() for value in row.values() if value]
    with nlp.memory_zone():
        before = [[token.text for token in nlp.make_doc(text)] for text in texts]
    FrequentWords(nlp).learn(texts)
    with nlp.memory_zone():
        assert [[token.text for token in nlp.make_doc(text)] for text in texts] == before
