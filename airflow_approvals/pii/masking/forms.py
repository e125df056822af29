"""Two forms in which texts are compared: one for the same value, one that a leak cannot hide behind."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

_SPACE = re.compile(r"\s+")
# Written without blanks between words (Hangul: with suffixes), so that every sign is a word of its own: Thai,
# Lao, Myanmar, Hangul, kana, CJK.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff"
    r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def joining_form(text: str) -> str:
    """Return the form under which two spellings are the same value: NFKC, case folded, single blanks.

    Signs that cannot be seen (zero-width, direction marks) do not count.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not folded.isascii():
        folded = "".join(sign for sign in folded if unicodedata.category(sign) != "Cf")
    return _SPACE.sub(" ", folded).strip()


class Words(NamedTuple):
    """A text as its words in searching form, and where each of them stands."""

    words: list[str]
    starts: list[int]  # offset of the first character of each word in the text
    ends: list[int]  # offset behind its last


def words_of(text: str) -> list[str]:
    """Return the words of a text: letters and digits, case and accents folded, all else is between words.

    The form is made character by character, so a value has the same words wherever it stands.
    """
    return text.translate(_FOLDED).split()


def placed_words(text: str) -> Words:
    """Return the words of a text with their places."""
    found = Words([], [], [])
    if text.isascii():
        for match in _ASCII_WORD.finditer(text):
            _close(found, match[0].lower(), match.start(), match.end())
        return found
    letters = ""
    start = end = 0
    for offset, sign in enumerate(text):
        folded = _FOLDED[ord(sign)]
        if not folded:
            continue
        for number, piece in enumerate(folded.split(" ")):
            if number:
                _close(found, letters, start, end)
                letters = ""
            if piece:
                start = start if letters else offset
                letters += piece
                end = offset + 1
    _close(found, letters, start, end)
    return found


def _close(found: Words, word: str, start: int, end: int) -> None:
    if word:
        found.words.append(word)
        found.starts.append(start)
        found.ends.append(end)


_ASCII_WORD = re.compile(r"[A-Za-z0-9]+")


@lru_cache(maxsize=1 << 16)
def _fold(code: int) -> str:
    sign = chr(code)
    if unicodedata.category(sign) == "Cf":
        return ""  # a zero-width space inside a number is no end of it
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", sign).casefold())
    return "".join(_fold_one(letter) for letter in folded)


def _fold_one(letter: str) -> str:
    if unicodedata.combining(letter):
        return ""
    if _UNSPACED.match(letter):
        return f" {letter} "
    digit = unicodedata.decimal(letter, None)  # Arabic-Indic and other digits; NFKD knows the full-width ones
    if digit is not None:
        return str(digit)
    return letter if letter.isalnum() else " "


class _Folding(dict[int, str]):
    """`str.translate` asks for each character once; the answer is kept."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold(code)
        return folded


_FOLDED = _Folding()
