"""Answers of a finder, written down for the run that comes after a killed one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from airflow_approvals.pii.cells import Gate
from airflow_approvals.pii.engine_identity import engine_digest
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.texts import Finder
from airflow_approvals.pii.scanner import Scanner


class RecordedFinder:
    """A finder whose answers are written down, and read back by a run that asks the same in the same order.

    Written are lengths of texts and places in them. The first question that an earlier run did not answer,
    or asked otherwise, and all that follow go to the finder.
    """

    def __init__(self, finder: Finder, file: Path) -> None:
        self._finder = finder
        self._file = file
        self._recorded = _Recorded(file)

    @property
    def entity_types(self) -> frozenset[str]:
        """What the finder itself can find."""
        return self._finder.entity_types

    @property
    def is_resuming(self) -> bool:
        """Whether the answers still come from an earlier run."""
        return self._recorded.is_open

    def find(
        self, texts: Iterable[str], context: tuple[str, ...], gate: Gate = Gate.ANYTHING
    ) -> Mapping[str, Sequence[Span]]:
        """Return the spans of each text."""
        asked = list(dict.fromkeys(texts))
        known = self._recorded.next_answer([len(text) for text in asked])
        if known is not None:
            return dict(zip(asked, known, strict=True))
        found = self._finder.find(asked, context, gate)
        answer = [[len(text), [list(span) for span in found[text]]] for text in asked]
        with self._file.open("a", encoding="ascii") as file:
            file.write(json.dumps(answer) + "\n")
        return found


class _Recorded:
    """The answers of an earlier run, one by one; what no longer fits is cut off, with all behind it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self.is_open = path.exists()

    def next_answer(self, lengths: list[int]) -> list[list[Span]] | None:
        if not self.is_open:
            return None
        with self._path.open("rb") as file:
            file.seek(self._place)
            line = file.readline()
        answer = json.loads(line) if line.endswith(b"\n") else None
        if answer is None or [length for length, _ in answer] != lengths:
            self.is_open = False
            os.truncate(self._path, self._place)
            return None
        self._place += len(line)
        return [[Span(*span) for span in spans] for _, spans in answer]


def identity_of(finder: Finder) -> str:
    """Return what tells one finder's answers from another's."""
    if isinstance(finder, Scanner):
        return engine_digest(finder)
    return f"{type(finder).__module__}.{type(finder).__qualname__}"


def identity_of_keys(keys: KeyRing | None) -> dict[str, str]:
    """Return what tells keys apart and does not help to find them."""
    if keys is None:
        return {}
    return {
        domain: hashlib.sha256(keys.key_for(domain, "identity")).hexdigest()
        for domain in sorted(keys.domains)
    }
