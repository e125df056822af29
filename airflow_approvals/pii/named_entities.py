"""Named entities of many texts: what spaCy's whole pipeline puts into `doc.ents`, without running all of it.

The pipeline's tagger, lemmatizer and attribute ruler have no say in entities. The parser has one: no entity
may cross a sentence start. That forbids moves and never adds one, so where the entities found without
sentences cross none, they are the same with them. Sentences are asked for only in texts with an entity of
several tokens, and the recogniser again only where one of these crosses a sentence start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_approvals.pii.entity_moves import EntityMoves, Features, TokenSpan
from airflow_approvals.pii.sentence_starts import SentenceStarts
from airflow_approvals.pii.token_vectors import TokenVectors

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

KNOWN_PIPES = {
    "tok2vec",
    "tagger",
    "parser",
    "attribute_ruler",
    "lemmatizer",
    "ner",
    "senter",
    "morphologizer",
}
RULED_ATTRIBUTES = {"TAG", "POS", "MORPH", "LEMMA", "DEP"}
BATCH = 256  # documents, as in spaCy's own `pipe`


class EntityScan:
    """The entity recogniser of a spaCy pipeline."""

    def __init__(self, nlp: Language) -> None:
        self._nlp = nlp
        self._ner: Any = nlp.get_pipe("ner")
        self._moves = EntityMoves.of(self._ner)
        self._parser: Any = nlp.get_pipe("parser") if "parser" in nlp.pipe_names else None
        tok2vec: Any = nlp.get_pipe("tok2vec") if "tok2vec" in nlp.pipe_names else None
        self._tok2vec = tok2vec
        self._vectors = TokenVectors.of(tok2vec.model) if tok2vec is not None else None
        knows_all = self._vectors is not None and self._parser is not None
        self._starts = SentenceStarts.of(self._parser) if knows_all else None
        self.path = "numpy" if self._moves is not None else "spacy"

    def entities(self, docs: Sequence[Doc]) -> list[list[TokenSpan]]:
        """Return the entities of tokenized texts; the documents are changed along the way."""
        found: list[list[TokenSpan]] = [[] for _ in docs]
        doubtful = list(range(len(docs)))
        if self._moves is not None:
            found, doubtful = self._moves.entities(_features(docs, self._moves.columns))
        for number, entities in zip(
            doubtful, self._by_spacy([docs[number] for number in doubtful]), strict=True
        ):
            found[number] = entities
        if self._parser is not None:
            self._respect_sentences(docs, found)
        return found

    def _by_spacy(self, docs: Sequence[Doc]) -> list[list[TokenSpan]]:
        return [
            [TokenSpan(entity.start, entity.end, entity.label_) for entity in doc.ents]
            for doc in self._ner.pipe(docs, batch_size=BATCH)
        ]

    def _respect_sentences(self, docs: Sequence[Doc], found: list[list[TokenSpan]]) -> None:
        several = [
            number
            for number, entities in enumerate(found)
            if any(entity.end - entity.first > 1 for entity in entities)
        ]
        several = self._perhaps_crossing([docs[number] for number in several], several, found)
        self._parse([docs[number] for number in several])
        crossing = [number for number in several if _crosses(docs[number], found[number])]
        fresh = [docs[number] for number in crossing]
        for doc in fresh:
            doc.set_ents([], default="missing")  # what spaCy's own recogniser may have said without sentences
        for number, entities in zip(crossing, self._by_spacy(fresh), strict=True):
            found[number] = entities

    def _perhaps_crossing(
        self, docs: Sequence[Doc], numbers: list[int], found: Sequence[Sequence[TokenSpan]]
    ) -> list[int]:
        """Return those of the numbers whose entities cross sentence starts, or where that is in doubt."""
        if self._starts is None or self._vectors is None or not docs:
            return numbers
        features = _features(docs, self._vectors.columns)
        vectors, which = self._vectors.encode_distinct(features.columns, features.lengths)
        starts, doubtful = self._starts.find(vectors, which, features.lengths)
        doubts = set(doubtful)
        ends = np.cumsum(features.lengths)
        before = (ends - features.lengths).tolist()
        return [
            number
            for place, number in enumerate(numbers)
            if place in doubts
            or any(
                starts[before[place] + entity.first + 1 : before[place] + entity.end].any()
                for entity in found[number]
                if entity.end - entity.first > 1
            )
        ]

    def _parse(self, docs: Sequence[Doc]) -> None:
        if self._vectors is not None:
            for batch in _batches(docs):
                features = _features(batch, self._vectors.columns)
                vectors = self._vectors.encode(features.columns, features.lengths)
                self._tok2vec.set_annotations(batch, np.split(vectors, np.cumsum(features.lengths)[:-1]))
        elif self._tok2vec is not None:
            docs = list(self._tok2vec.pipe(docs, batch_size=BATCH))
        for _ in self._parser.pipe(docs, batch_size=BATCH):
            pass


def has_known_pipeline(nlp: Language) -> bool:
    """Tell whether the `ner` pipe alone, held back by the parser's sentences, makes the entities."""
    names = nlp.pipe_names
    if "ner" not in names or not KNOWN_PIPES.issuperset(names) or names[-1] != "ner":
        return False
    if any(nlp.get_pipe_meta(name).factory != name for name in names):
        return False
    if "senter" in names or ("parser" in names and "tok2vec" not in names):
        return False
    if "attribute_ruler" not in names:
        return True
    ruler: Any = nlp.get_pipe("attribute_ruler")
    return all(RULED_ATTRIBUTES.issuperset(rule["attrs"]) for rule in ruler.patterns)


def _features(docs: Sequence[Doc], columns: list[str]) -> Features:
    from spacy.attrs import IDS, IS_SPACE  # type: ignore[import-not-found]  # compiled, without stubs

    wanted = [*(IDS[column] for column in columns), IS_SPACE]
    arrays = [doc.to_array(wanted) for doc in docs]
    every = np.concatenate(arrays) if arrays else np.zeros((0, len(wanted)), np.uint64)
    return Features(
        columns=every[:, :-1],
        is_space=every[:, -1] > 0,
        lengths=np.fromiter((len(doc) for doc in docs), np.int64, len(docs)),
    )


def _batches(docs: Sequence[Doc]) -> list[Sequence[Doc]]:
    return [docs[first : first + BATCH] for first in range(0, len(docs), BATCH)]


def _crosses(doc: Doc, entities: Sequence[TokenSpan]) -> bool:
    return any(
        doc[token].is_sent_start for entity in entities for token in range(entity.first + 1, entity.end)
    )
