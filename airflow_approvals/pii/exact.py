"""Presidio's findings, fast: every shortcut is one that cannot change what is found.

Texts go through the pattern recognizers that could match, the phone regions that could match, and the entity
recogniser in batches; then context, thresholds and duplicates as in `AnalyzerEngine.analyze`. A text whose
result hangs on lemmas is given to Presidio itself. Where the analyzer holds anything that is not known here,
`find_obstacle` names it, and the scanner uses Presidio for everything.

Source: presidio_analyzer/analyzer_engine.py, `analyze`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow_approvals.pii.boost import ContextBoost, Surroundings, has_known_lemmas
from airflow_approvals.pii.duplicates import without_duplicates
from airflow_approvals.pii.engine import PresidioEngine, Spans, in_order
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.named_entities import EntityScan, has_known_pipeline
from airflow_approvals.pii.patterns import Hit, PatternScan, is_pattern_recognizer
from airflow_approvals.pii.phones import PhoneScan, is_phone_recognizer
from airflow_approvals.pii.tokenizing import FrequentWords

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine
    from spacy.language import Language
    from spacy.tokens import Doc

TEXTS_AT_A_TIME = 400  # tokenized texts are large; more of them are hardly faster


class ExactEngine:
    """Finds what `AnalyzerEngine.analyze(text, language, context=context)` finds."""

    def __init__(self, analyzer: AnalyzerEngine, language: str) -> None:
        self._presidio = PresidioEngine(analyzer, language)
        engine: Any = analyzer.nlp_engine
        self._nlp = engine.nlp[language]
        self._frequent_words = FrequentWords(self._nlp)
        recognizers = analyzer.registry.get_recognizers(language=language, all_fields=True)
        entities = analyzer.get_supported_entities(language)
        numbered = list(enumerate(recognizers))
        self._patterns = PatternScan([one for one in numbered if is_pattern_recognizer(one[1])], entities)
        self._phones = [(number, PhoneScan(one)) for number, one in numbered if is_phone_recognizer(one)]
        self._named = _NamedEntities(
            analyzer, [one for one in numbered if _is_spacy_recognizer(one[1])], entities
        )
        self._entities = EntityScan(self._nlp)
        self._words = [tuple(one.context or ()) for one in recognizers]
        self._boost = ContextBoost(analyzer.context_aware_enhancer, self._nlp, filter(None, self._words))
        self._thresholds = [
            _Thresholds(one, float(analyzer.default_score_threshold or 0)) for one in recognizers
        ]
        self.asked_presidio = 0
        self.path = f"prefilter {self._patterns.prefilter}, entities {self._entities.path}"

    def spans(
        self, texts: Sequence[str], context: tuple[str, ...], entities: frozenset[str] | None = None
    ) -> list[Spans]:
        """Return the spans of each text, as `TextEngine` promises."""
        found: list[Spans] = []
        for first in range(0, len(texts), TEXTS_AT_A_TIME):
            found += self._some(texts[first : first + TEXTS_AT_A_TIME], context, entities)
        return found

    def _some(
        self, texts: Sequence[str], context: tuple[str, ...], entities: frozenset[str] | None
    ) -> list[Spans]:
        self._frequent_words.learn(texts)
        with self._nlp.memory_zone():
            found, open_ = self._spans(texts, context, entities)
        if open_:
            self.asked_presidio += len(open_)
            asked = self._presidio.spans([texts[number] for number in open_], context, entities)
            for number, spans in zip(open_, asked, strict=True):
                found[number] = spans
        return found

    def _spans(
        self, texts: Sequence[str], context: tuple[str, ...], entities: frozenset[str] | None
    ) -> tuple[list[Spans], list[int]]:
        """Return the spans, and the numbers of the texts for which only Presidio can tell them."""
        hits = [self._unnamed(text) for text in texts]
        docs: list[Doc | None] = [None] * len(texts)
        if entities is None or not self._named.entities.isdisjoint(entities):
            made = [self._nlp.make_doc(text) for text in texts]
            for number, (doc, tokens) in enumerate(zip(made, self._entities.entities(made), strict=True)):
                if tokens:
                    hits[number].extend(self._named.hits(doc, tokens))
            docs = list(made)
        by_column = [bool(words) and self._boost.by_column(words, context) for words in self._words]
        found: list[Spans] = []
        open_: list[int] = []
        for number, text in enumerate(texts):
            spans = self._scored(text, docs[number], hits[number], by_column) if hits[number] else ()
            if spans is None:
                open_.append(number)
                spans = ()
            found.append(spans if entities is None else _only(spans, entities))
        return found, open_

    def _unnamed(self, text: str) -> list[Hit]:
        hits = self._patterns.hits(text)
        for number, phones in self._phones:
            hits.extend(Hit(number, span) for span in phones.spans(text))
        return hits

    def _scored(
        self, text: str, doc: Doc | None, hits: Sequence[Hit], by_column: Sequence[bool]
    ) -> Spans | None:
        """Apply context, thresholds and duplicates; None where a score hangs on lemmas."""
        around: Surroundings | None = None
        spans: list[Span] = []
        for number, span in hits:
            if words := self._words[number]:
                boosted: bool | None = by_column[number]
                if not boosted:
                    around = around or Surroundings(
                        text, doc if doc is not None else self._nlp.make_doc(text)
                    )
                    boosted = self._boost.by_text(words, around, span.start)
                if boosted is None:
                    return None
                if boosted:
                    span = span._replace(score=self._boost.boosted(span.score))
            if self._thresholds[number].passes(span):
                spans.append(span)
        return in_order(without_duplicates(spans))


def find_obstacle(analyzer: AnalyzerEngine, language: str) -> str | None:
    """Return why `ExactEngine` cannot stand in for this analyzer; None where it can."""
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    if type(analyzer) is not AnalyzerEngine or analyzer.log_decision_process:
        return "an analyzer of its own kind"
    if type(analyzer.context_aware_enhancer) is not LemmaContextAwareEnhancer:
        return "a context enhancer of its own kind"
    if type(analyzer.nlp_engine) is not SpacyNlpEngine:
        return f"the NLP engine {type(analyzer.nlp_engine).__name__}"
    nlp = cast("dict[str, Language]", analyzer.nlp_engine.nlp)[language]
    if not has_known_pipeline(nlp) or not has_known_lemmas(nlp):
        return f"a spaCy pipeline of its own kind: {', '.join(nlp.pipe_names)}"
    recognizers: list[Any] = analyzer.registry.get_recognizers(language=language, all_fields=True)
    for recognizer in recognizers:
        if not _is_known(recognizer):
            return f"the recognizer {recognizer.name}"
    return None


def _is_known(recognizer: Any) -> bool:
    from presidio_analyzer import EntityRecognizer

    if type(recognizer).enhance_using_context is not EntityRecognizer.enhance_using_context:
        return False
    return (
        is_pattern_recognizer(recognizer)
        or is_phone_recognizer(recognizer)
        or _is_spacy_recognizer(recognizer)
    )


def _is_spacy_recognizer(recognizer: Any) -> bool:
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    return type(recognizer) is SpacyRecognizer and "analyze" not in vars(recognizer)


def _only(spans: Spans, entities: frozenset[str]) -> Spans:
    return tuple(span for span in spans if span.entity_type in entities)


class _NamedEntities:
    """What Presidio makes of the model's labels.

    Source: presidio_analyzer/nlp_engine/spacy_nlp_engine.py, `_get_updated_entities`;
    `SpacyRecognizer.analyze`.
    """

    def __init__(
        self, analyzer: AnalyzerEngine, recognizers: Sequence[tuple[int, Any]], supported: Sequence[str]
    ) -> None:
        engine: Any = analyzer.nlp_engine
        self._config = engine.ner_model_configuration
        self._recognizers = [
            (number, frozenset(recognizer.supported_entities) & frozenset(supported))
            for number, recognizer in recognizers
        ]
        self.entities = frozenset(entity for _, entities in self._recognizers for entity in entities)
        self._known: dict[str, tuple[str, float] | None] = {}

    def hits(self, doc: Doc, tokens: Sequence[Any]) -> list[Hit]:
        found: list[Hit] = []
        for first, end, label in tokens:
            if label not in self._known:
                self._known[label] = self._named(label)
            named = self._known[label]
            if named is None:
                continue
            entity, score = named
            last = doc[end - 1]
            span = Span(entity, doc[first].idx, last.idx + len(last), score)
            found.extend(Hit(number, span) for number, entities in self._recognizers if entity in entities)
        return found

    def _named(self, label: str) -> tuple[str, float] | None:
        config = self._config
        entity = config.model_to_presidio_entity_mapping.get(label, label)
        if label in config.labels_to_ignore or entity in config.labels_to_ignore:
            return None
        score = config.default_score
        if entity in config.low_score_entity_names:
            score *= config.low_confidence_score_multiplier
        return entity, score


class _Thresholds:
    def __init__(self, recognizer: Any, engine_default: float) -> None:
        self._by_entity: dict[str, float] = dict(recognizer.score_thresholds)
        self._default = self._by_entity.get("default", engine_default)

    def passes(self, span: Span) -> bool:
        return span.score >= self._by_entity.get(span.entity_type, self._default)
