"""Presidio's context words: which results score higher, mostly without lemmatizing anything.

A result is boosted when a context word of its recognizer occurs in the column's name, or in the lemma of one
of the words before it. Lemmas need spaCy's tagger, attribute ruler and lemmatizer; here the question is put
to the words themselves first. For every surface form all lemmas that the pipeline could give it are known
from its tables, so:
- if none of them holds a context word in any word up to the match, there is no boost;
- if all of them do, for a word that is certainly among those looked at, there is one;
- otherwise the answer is `None`, and the caller asks Presidio.

Source: presidio_analyzer/context_aware_enhancers/lemma_context_aware_enhancer.py,
nlp_engine/nlp_artifacts.py, spacy/pipeline/lemmatizer.py, spacy/lang/en/lemmatizer.py.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

PARTS_OF_SPEECH = (
    "adj", "adp", "adv", "aux", "cconj", "conj", "det", "intj", "noun", "num", "part", "pron", "propn",
    "punct", "sconj", "sym", "verb", "x",
)  # fmt: skip
REMEMBERED_WORDS = 10_000  # more make a scan no faster, and take memory for words that come once


class ContextBoost:
    """The context enhancer of an analyzer, for the recognizers of one language."""

    def __init__(self, enhancer: Any, nlp: Language, groups: Iterable[tuple[str, ...]]) -> None:
        """Take the context words of every recognizer that has any."""
        self._enhancer = enhancer
        self._reach_back: int = enhancer.context_prefix_count
        self._reach_ahead: int = enhancer.context_suffix_count
        self._nlp = nlp
        self._lemmas = PossibleLemmas(nlp)
        self._whole_word = enhancer.context_matching_mode == "whole_word"
        self._bits = {group: 1 << place for place, group in enumerate(dict.fromkeys(groups))}
        every = {word.lower() for group in self._bits for word in group}
        self._any_word = _any_of(every)
        self._any_stem = _any_of(stem for word in every for stem in _stems(word, self._lemmas.endings))
        self._seen_by = lru_cache(REMEMBERED_WORDS)(self._groups_that_see)
        self._is_surely_keyword = lru_cache(REMEMBERED_WORDS)(self._must_be_keyword)
        self._is_surely_none = lru_cache(REMEMBERED_WORDS)(self._cannot_be_keyword)

    def by_column(self, words: tuple[str, ...], context: tuple[str, ...]) -> bool:
        """Tell whether one of a recognizer's context words is in the context that was given with the text."""
        return self._holds(words, [given.lower() for given in context])

    def by_text(self, words: tuple[str, ...], around: Surroundings, start: int) -> bool | None:
        """Tell whether the words around a match at `start` boost it; None where only lemmas can tell."""
        index = around.token_at(start)
        if index is None:
            return None
        if around.seen_by is None:
            around.seen_by = [self._seen_by(text) for text in around.texts]
        first, last = around.seen_between(self._bits[words])
        if first > last:
            return False
        backward = self._along(words, around, range(index, first - 1, -1), self._reach_back)
        if backward:
            return True
        forward = self._along(words, around, range(index, last + 1), self._reach_ahead)
        if forward:
            return True
        return None if backward is None or forward is None else False

    def _along(self, words: tuple[str, ...], around: Surroundings, places: range, reach: int) -> bool | None:
        """Walk from the match's own token as Presidio does: until it has met one more keyword than `reach`.

        With a reach of 0 that is the match's own token, or the next keyword where that token is none. Which
        words are keywords hangs on their lemmas, too: `least` and `most` are how many it can have met.
        """
        bit = self._bits[words]
        seen_by = around.seen_by or ()
        least = most = 0
        unknown = False
        for place in places:
            if least > reach:
                break
            text = around.texts[place]
            if seen_by[place] & bit:
                if most <= reach and self._sees_surely(words, text):
                    return True
                unknown = True
            least += self._is_surely_keyword(text)
            most += not self._is_surely_none(text) or text.lower() in around.pieces
        return None if unknown else False

    def boosted(self, score: float) -> float:
        """Return the score of a boosted result."""
        score += self._enhancer.context_similarity_factor
        score = max(score, self._enhancer.min_score_with_context_similarity)
        return float(min(score, self._enhancer.MAX_SCORE))

    def _groups_that_see(self, text: str) -> int:
        """Return, as bits, the groups of words of which one is in a lemma that this word could have."""
        if self._lemmas.are_regular(text) and not self._any_stem.search(text.lower()):
            return 0
        lemmas = [lemma.lower() for lemma in self._lemmas.of(text)]
        if not any(self._any_word.search(lemma) for lemma in lemmas):
            return 0
        return sum(bit for group, bit in self._bits.items() if self._holds(group, lemmas))

    def _sees_surely(self, words: tuple[str, ...], text: str) -> bool:
        """Tell whether a word boosts whatever its lemma is."""
        return self._is_surely_keyword(text) and all(
            self._holds(words, [lemma]) for lemma in self._lemmas.of(text)
        )

    def _must_be_keyword(self, text: str) -> bool:
        return all(self._is_keyword(lemma) and ":" not in lemma for lemma in self._lemmas.of(text))

    def _cannot_be_keyword(self, text: str) -> bool:
        return not any(self._is_keyword(lemma) for lemma in self._lemmas.of(text))

    def _is_keyword(self, lemma: str) -> bool:
        lexeme = self._nlp.vocab[lemma]
        return not lexeme.is_stop and not lexeme.is_punct and lemma not in ("be", "-PRON-")

    def _holds(self, words: tuple[str, ...], found: Sequence[str]) -> bool:
        lower = [text.lower() for text in found]
        if self._whole_word:
            return any(word.lower() in lower for word in words)
        together = "\n".join(lower)
        return any(
            word.lower() in text for word in words for text in (lower if "\n" in word else (together,))
        )


class Surroundings:
    """The words of one text."""

    def __init__(self, text: str, doc: Doc) -> None:
        from spacy.attrs import IDS  # type: ignore[import-not-found]  # compiled, without stubs

        # Asked of the document as a whole: a Python object for each token would cost more than all the rest.
        starts, lengths = doc.to_array([IDS["IDX"], IDS["LENGTH"]]).astype("int64").T
        self._ends = (starts + lengths).tolist()
        self.texts = [text[start:end] for start, end in zip(starts.tolist(), self._ends, strict=True)]
        self.seen_by: list[int] | None = None  # bits of `ContextBoost`, by token
        self._between: dict[int, tuple[int, int]] = {}
        # Keywords are also split at colons: a stop word may come to be one after all.
        self.pieces = {piece for text in self.texts if ":" in text for piece in text.lower().split(":")}

    def token_at(self, start: int) -> int | None:
        """Return the first token that ends after a match starts; None where Presidio finds none either."""
        index = bisect_right(self._ends, start)
        return index if index < len(self._ends) else None

    def seen_between(self, bit: int) -> tuple[int, int]:
        """Return the first and last token that some words see; the first behind the last where none is."""
        if bit not in self._between:  # once: a text of a million characters has thousands of matches
            seeing = [place for place, seen in enumerate(self.seen_by or ()) if seen & bit]
            self._between[bit] = (seeing[0], seeing[-1]) if seeing else (0, -1)
        return self._between[bit]


class PossibleLemmas:
    """Every lemma that a pipeline could give to a word."""

    def __init__(self, nlp: Language) -> None:
        lookups = nlp.get_pipe("lemmatizer").lookups  # type: ignore[attr-defined]  # typed as a callable
        self._exceptions = _plain(lookups.get_table("lemma_exc", {}))
        self._rules = _plain(lookups.get_table("lemma_rules", {}))
        self._index = {
            part_of_speech: frozenset(words)
            for part_of_speech, words in _plain(lookups.get_table("lemma_index", {})).items()
        }
        self._parts_of_speech = sorted({*self._exceptions, *self._rules, *self._index})
        # Whether a word without letters, most of what tables hold, can have any lemma but itself.
        self._change_signs = any(
            form.isascii() and not any(map(str.isalpha, form))
            for form in (
                *(old for rules in self._rules.values() for old, new in rules if (old, new) != ("", "")),
                *(nlp.vocab.strings.as_string(form) for forms in self._exceptions.values() for form in forms),
            )
        )
        self._ruled = _RuledLemmas(nlp)
        self.endings = {new.lower() for rules in self._rules.values() for _, new in rules}
        self._irregular = {
            nlp.vocab.strings.as_string(form) for forms in self._exceptions.values() for form in forms
        }
        self.of = lru_cache(REMEMBERED_WORDS)(self._of)

    def are_regular(self, text: str) -> bool:
        """Tell whether every lemma of a word is itself, or what the rules make of its end."""
        lower = text.lower()
        return lower not in self._irregular and not self._ruled.of(lower)

    def _of(self, text: str) -> tuple[str, ...]:
        """Return them all, for whatever part of speech the word may be."""
        lower = text.lower()
        found = {text, lower, *self._ruled.of(lower)}
        if not self._change_signs and text.isascii() and not any(map(str.isalpha, text)):
            return tuple(found)
        for part_of_speech in self._parts_of_speech:
            found.add(self._first(text, lower, part_of_speech))
        found.discard("")
        return tuple(found)

    def _first(self, text: str, lower: str, part_of_speech: str) -> str:
        """Return the lemma that the rules prefer: `Lemmatizer.rule_lemmatize`, line by line."""
        index = self._index.get(part_of_speech, frozenset())
        forms: list[str] = []
        unheard_of: list[str] = []
        for old, new in self._rules.get(part_of_speech, {}):
            form = lower[: len(lower) - len(old)] + new if lower.endswith(old) else ""
            if not form:
                continue
            if form in index:
                forms.insert(0, form)
            elif not form.isalpha():
                forms.append(form)
            else:
                unheard_of.append(form)
        forms = list(dict.fromkeys(forms))
        for form in self._exceptions.get(part_of_speech, {}).get(lower, []):
            if form not in forms:
                forms.insert(0, form)
        return (forms or unheard_of or [text])[0]


def _stems(word: str, endings: Iterable[str]) -> Iterator[str]:
    """Yield what another word must hold so that it can hold this one after its end was replaced."""
    yield word
    for ending in endings:
        if word in ending:
            yield ""
        for shared in range(1, min(len(ending), len(word)) + 1):
            if word.endswith(ending[:shared]):
                yield word[:-shared]


def _any_of(pieces: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(set(pieces)))) or "(?!)")


def has_known_lemmas(nlp: Language) -> bool:
    """Tell whether `PossibleLemmas` knows how this pipeline makes lemmas."""
    from spacy.lang.en.lemmatizer import EnglishLemmatizer

    names = nlp.pipe_names
    if not {"tagger", "attribute_ruler", "lemmatizer"}.issubset(names):
        return False
    lemmatizer = nlp.get_pipe("lemmatizer")
    return type(lemmatizer) is EnglishLemmatizer and lemmatizer.mode == "rule"


def _plain(table: Any) -> dict[str, Any]:
    """Return a lookup table by names: spaCy's are keyed by hashes, and hash a name for every question."""
    return {name: table[name] for name in PARTS_OF_SPEECH if name in table}


class _RuledLemmas:
    """What the attribute ruler could set as a lemma, by the lower-case form of the word."""

    def __init__(self, nlp: Language) -> None:
        self._by_form: dict[str, set[str]] = {}
        self._by_expression: list[tuple[re.Pattern[str], str]] = []
        self._anywhere: set[str] = set()
        ruler: Any = nlp.get_pipe("attribute_ruler")
        for rule in ruler.patterns:
            if "LEMMA" in rule["attrs"]:
                for pattern in rule["patterns"]:
                    self._add(pattern[rule["index"]], rule["attrs"]["LEMMA"])

    def of(self, lower: str) -> set[str]:
        found = self._anywhere | self._by_form.get(lower, set())
        return found | {lemma for expression, lemma in self._by_expression if expression.search(lower)}

    def _add(self, token: dict[str, Any], lemma: str) -> None:
        form = token.get("LOWER", token.get("ORTH"))
        if isinstance(form, str):
            self._by_form.setdefault(form.lower(), set()).add(lemma)
        elif isinstance(form, dict) and set(form) == {"IN"}:
            for one in form["IN"]:
                self._by_form.setdefault(one.lower(), set()).add(lemma)
        elif isinstance(form, dict) and set(form) == {"REGEX"} and "LOWER" in token:
            self._by_expression.append((re.compile(form["REGEX"]), lemma))
        else:
            self._anywhere.add(lemma)
