"""Values that are known, and where they stand again in other texts, however they are written there.

A value is its letters and digits in searching form (`forms.words_of`), so neither case, accents, full-width
digits, invisible signs nor other separators hide it: `4111-1111 1111 1111` is `4111111111111111`. (The four
numbers of an IP address may have any separators between them, but not none.) It is looked for at the words'
borders of a text, at every word. Kept is a 64-bit hash of each value: eight bytes a value whatever their
number, and no text of a value at all. Two values with one hash can only raise a false alarm (once in 10^4
runs with 10^7 values and 10^8 places), never hide a leak.
"""

from __future__ import annotations

import json
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Self

from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.pii.masking.forms import words_of

SHORTEST = 5  # letters and digits; shorter ones stand everywhere by chance
LONGEST = 200  # letters and digits; of longer values this many from the start are looked for
_FLAGS = 1 << 22
_DECIMAL = re.compile(r"\s*[+-]?\d+\.\d+\s*", re.ASCII)
_ADDRESS = re.compile(r"\s*\d{1,3}(?:\.\d{1,3}){3}\s*", re.ASCII)
_LONG_DECIMAL = 9  # digits, from which on a number with a point may be an account number


class ValueIndex:
    """A set of values, each with its entity type."""

    def __init__(self) -> None:
        self.short_values = 0  # that were not taken in, because they have fewer than five letters and digits
        self._entities: list[str] = []
        self._hashes = array("q")
        self._codes = array("H")
        self._added = 0
        self._lengths: set[int] = set()
        self._starts = bytearray(_FLAGS)  # whether a value may begin with these five characters
        self._has_addresses = False
        self._sorted = True

    def __len__(self) -> int:
        self._sort()
        return len(self._hashes)

    @property
    def entity_types(self) -> frozenset[str]:
        """The types of the values."""
        return frozenset(self._entities)

    def __reduce__(self) -> NoReturn:
        # Python hashes texts under a secret of each process: in another one nothing would be found again.
        raise TypeError("an index of known values cannot leave its process; collect the values again there")

    def packed(self) -> bytes:
        """Return the index for another process that hashes texts alike (PYTHONHASHSEED)."""
        self._sort()
        head = {
            "hashes_as": _hashes_as(),
            "short_values": self.short_values,
            "entities": self._entities,
            "lengths": sorted(self._lengths),
            "has_addresses": self._has_addresses,
            "count": len(self._hashes),
        }
        body = self._hashes.tobytes() + self._codes.tobytes() + bytes(self._starts)
        return json.dumps(head).encode() + b"\n" + zlib.compress(body, 1)

    @classmethod
    def unpacked(cls, packed: Iterable[bytes]) -> Self:
        """Return one index of all that were packed.

        Raise `ConfigurationError` where this process hashes texts in another way: nothing would be found.
        """
        made = cls()
        for one in packed:
            head, _, body = one.partition(b"\n")
            made._take_in(json.loads(head), zlib.decompress(body))
        made._sort()
        return made

    def _take_in(self, head: dict[str, Any], body: bytes) -> None:
        if head["hashes_as"] != _hashes_as():
            raise ConfigurationError(
                "an index of known values comes from a process that hashes texts in another way, and nothing "
                "would be found in it; expected one PYTHONHASHSEED and one Python for all workers"
            )
        codes: list[int] = []
        for entity in head["entities"]:
            if entity not in self._entities:
                self._entities.append(entity)
            codes.append(self._entities.index(entity))
        split, end = 8 * head["count"], 10 * head["count"]
        self._hashes.frombytes(body[:split])
        theirs = array("H")
        theirs.frombytes(body[split:end])
        self._codes.extend(codes[code] for code in theirs)
        self._starts = bytearray(
            (int.from_bytes(self._starts, "big") | int.from_bytes(body[end:], "big")).to_bytes(_FLAGS, "big")
        )
        self._lengths.update(head["lengths"])
        self.short_values += head["short_values"]
        self._has_addresses |= head["has_addresses"]
        self._sorted = False

    def add(self, text: str, entity_type: str) -> None:
        """Take in one value."""
        words = words_of(text)
        # The dots of an IP address are part of it: without them any number of five digits is one.
        is_address = _ADDRESS.fullmatch(text) and all(int(word) < 256 for word in words)
        form = _cut(words)
        if len(form) < SHORTEST:
            self.short_values += 1
            return
        if is_address:
            self._has_addresses = True
            self._add(".".join(words), entity_type)
            return
        self._add(form, entity_type)
        if _DECIMAL.fullmatch(text):
            self._add(text.strip(), entity_type)

    def find(self, words: Sequence[str]) -> Iterator[tuple[int, int, str]]:
        """Yield first word, last word and entity type of every value that stands in these words."""
        self._sort()
        if not self._hashes:
            return
        starts, flags, lengths = _offsets(words), self._starts, self._lengths
        joined = "".join(words)
        longest = max(lengths)
        if self._has_addresses:
            yield from self._find_addresses(words)
        for first, start in enumerate(starts[:-1]):
            head = joined[start : start + SHORTEST]
            if len(head) < SHORTEST:
                return
            if not flags[hash(head) % _FLAGS]:
                continue
            for last in range(first, len(words)):
                length = starts[last + 1] - start
                if length > longest:
                    break
                if length in lengths:
                    entity = self._entity_of(joined[start : start + length])
                    if entity is not None:
                        yield first, last, entity

    def find_in_text(self, text: str) -> Iterator[str]:
        """Yield the entity type of every value in one text; a number with a point is one word."""
        if _DECIMAL.fullmatch(text):
            self._sort()
            entity = self._entity_of(text.strip())
            if entity is not None:
                yield entity
            if sum(map(str.isdecimal, text)) < _LONG_DECIMAL:
                return
        for _, _, entity in self.find(words_of(text)):
            yield entity

    def find_whole(self, text: str) -> Iterator[str]:
        """Yield the entity type of a text that is a value from its first word to its last."""
        self._sort()
        form = _cut(words_of(text))
        entity = self._entity_of(form) if len(form) >= SHORTEST else None
        if entity is not None:
            yield entity

    def _find_addresses(self, words: Sequence[str]) -> Iterator[tuple[int, int, str]]:
        run = 0
        for last, word in enumerate(words):
            run = run + 1 if _is_octet(word) else 0
            if run >= 4:
                entity = self._entity_of(".".join(words[last - 3 : last + 1]))
                if entity is not None:
                    yield last - 3, last, entity

    def _add(self, form: str, entity_type: str) -> None:
        if entity_type not in self._entities:
            self._entities.append(entity_type)
        self._hashes.append(hash(form))
        self._codes.append(self._entities.index(entity_type))
        self._lengths.add(len(form))
        self._starts[hash(form[:SHORTEST]) % _FLAGS] = 1
        self._sorted = False
        self._added += 1
        # The same value comes again and again: sort and drop those before they fill memory.
        if self._added > max(1 << 18, len(self._hashes) // 2):
            self._sort()

    def _sort(self) -> None:
        if self._sorted:
            return
        import numpy as np

        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        codes = np.frombuffer(self._codes, dtype=np.uint16)
        distinct, places = np.unique(hashes, return_index=True)
        kept = codes[places]
        del hashes, codes
        self._hashes, self._codes = array("q"), array("H")
        self._hashes.frombytes(distinct.tobytes())
        self._codes.frombytes(kept.tobytes())
        self._sorted, self._added = True, 0

    def _entity_of(self, form: str) -> str | None:
        wanted = hash(form)
        place = bisect_left(self._hashes, wanted)
        if place < len(self._hashes) and self._hashes[place] == wanted:
            return self._entities[self._codes[place]]
        return None


def find_few(words: Sequence[str], values: Mapping[str, str]) -> Iterator[tuple[int, int, str]]:
    """Yield first word, last word and type of each of a few values, given in searching form."""
    if not values:
        return
    longest = max(map(len, values))
    heads = {form[:3] for form in values}
    starts = _offsets(words)
    joined = "".join(words)
    for first, start in enumerate(starts[:-1]):
        if joined[start : start + 3] not in heads:
            continue
        for last in range(first, len(words)):
            if starts[last + 1] - start > longest:
                break
            entity = values.get(joined[start : starts[last + 1]])
            if entity is not None:
                yield first, last, entity


def searching_form(text: str) -> str:
    """Return the letters and digits of a text as they are looked for."""
    return "".join(words_of(text))


def _hashes_as() -> list[int]:
    """Return what tells two ways of hashing texts apart."""
    return [hash("airflow-approvals"), hash("known values")]


def _is_octet(word: str) -> bool:
    return len(word) <= 3 and word.isdecimal()


def _offsets(words: Iterable[str]) -> list[int]:
    found = [0]
    for word in words:
        found.append(found[-1] + len(word))
    return found


def _cut(words: Sequence[str]) -> str:
    """Return the joined words, of long texts as many whole ones as fit."""
    joined = ""
    for word in words:
        if joined and len(joined) + len(word) > LONGEST:
            break
        joined += word
    return joined
