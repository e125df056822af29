"""spaCy's tokenizer, with the words that come again and again kept from one batch to the next.

Inside a memory zone spaCy keeps no word that it has cut up, and in a text with one of its special cases ("id"
is one) it keeps none after it either. What a word is cut into is the same wherever it stands: words that come
more than once are given to the tokenizer alone, outside the zone, and from then on are looked up.

Source: spacy/tokenizer.pyx, `_tokenize`, `_save_cached`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.language import Language

MOST_WORDS = 10_000  # spaCy's own limit is of this order
LONGEST_WORD = 40  # characters


class FrequentWords:
    """The words that a pipeline's tokenizer was taught."""

    def __init__(self, nlp: Language) -> None:
        self._tokenizer = nlp.tokenizer
        self._words: set[str] = set()

    def learn(self, texts: Iterable[str]) -> None:
        """Take in what comes more than once in these texts; call it outside of memory zones."""
        if len(self._words) >= MOST_WORDS:
            return
        counts = Counter(word for text in texts for word in text.split())
        for word, count in counts.items():
            if count > 1 and len(word) <= LONGEST_WORD and word not in self._words:
                self._words.add(word)
                self._tokenizer(word)
                if len(self._words) >= MOST_WORDS:
                    return
