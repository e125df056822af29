"""A verified ledger export as something to look things up in, without holding it in memory.

The export is read once; of each entry only its place in the file is kept, by request. What an entry says is
read from the file when it is needed.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic_core import from_json

from airflow_approvals.core.errors import InvalidRequestError, VerificationError
from airflow_approvals.core.moments import rfc3339, time_of
from airflow_approvals.evidence.cases import is_refusal
from airflow_approvals.evidence.facts import find_fault

_BODY = 68  # where an entry begins in its line: after `["`, 64 hex digits, `",`
_BUFFER = 1 << 20
_LEEWAY = timedelta(minutes=5)  # between the clocks of several servers, and while an entry waits for its turn
_END = re.compile(
    rb',"index":(\d+),"kind":"([a-z_.]+)","request_id":(?:null|"([A-Za-z0-9_.:-]{1,100})"),"time":"([0-9T:.Z-]+)","v":1\}\]\n'
)
_INDEX = re.compile(rb',"index":(\d{1,18}),')


@dataclass(frozen=True, kw_only=True)
class Period:
    """From `since` up to, and without, `until`."""

    since: datetime
    until: datetime

    @cached_property
    def bounds(self) -> tuple[str, str]:
        """The two ends as entries write their times: of one width, so they compare as text."""
        return rfc3339(self.since), rfc3339(self.until)


@dataclass(kw_only=True, slots=True)
class _Places:
    """Where the entries about one request are, as offset and length in turn."""

    at: array[int] = field(default_factory=lambda: array("Q"))
    in_period: bool = False


class LedgerFile:
    """The entries of one export up to the end of a period; use it as a context manager.

    The file must have been verified. An entry that is read has the facts of its kind, or its `fault` says
    what keeps it from being told: then its `data` is empty.
    """

    def __init__(self, path: Path, period: Period) -> None:
        self.period = period
        self.counts: Counter[str] = Counter()  # entries in the period, by kind
        self.entries = 0  # in the whole file
        self.backdated = 0  # of them, dated clearly earlier than one that stands before them
        self.digests = bytearray()  # leaf hashes of the whole file, 32 bytes each
        self._requests: dict[bytes, _Places] = {}
        self._others = array("Q")  # entries in the period that are about no request that there is
        self._before = array("Q")  # those before it
        self._keys = array("Q")  # public keys that came into use, whenever
        self._stream = path.open("rb", buffering=_BUFFER)

    def __enter__(self) -> Self:
        try:
            self._index()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def request_ids(self) -> Iterator[str]:
        """Yield every request that something happened to in the period, in order of opening."""
        return (name.decode() for name, places in self._requests.items() if places.in_period)

    def entries_of(self, request_id: str) -> Iterator[dict[str, Any]]:
        """Yield what happened to one request before the end of the period, in order."""
        return self._read(self._requests[request_id.encode()].at)

    def knows(self, request_id: str) -> bool:
        """Return whether there is anything about this request before the end of the period."""
        return request_id.encode() in self._requests

    def other_entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries of the period that are about no request that there is, in order."""
        return self._read(self._others)

    def earlier_entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries before the period that are about no request that there is, in order."""
        return self._read(self._before)

    def recorded_keyids(self) -> Iterator[str]:
        """Yield the id of every public key that the whole ledger has on record."""
        return (str(entry["data"].get("keyid")) for entry in self._read(self._keys))

    def body_at(self, offset: int, length: int) -> bytes:
        """Return the body of an entry as it was hashed."""
        return os.pread(self._stream.fileno(), length, offset)[_BODY:-2]

    def _index(self) -> None:
        since, until = (bound.encode() for bound in self.period.bounds)
        offset, latest = 0, b""
        for line in self._stream:
            start, offset = offset, offset + len(line)
            if not line.startswith(b'["'):
                continue
            end = _end_of(line)
            self.digests += bytes.fromhex(line[2:66].decode())
            self.entries += 1
            time, is_dated = end[4], _is_time(end[4])
            if not is_dated or time < latest:
                self.backdated += not is_dated or _is_backdated(time, latest)
            else:
                latest = time
            if end[2] == b"key.added":
                self._keys.extend((start, len(line)))
            if time < until or not is_dated:  # when that was nobody knows, and it must not go untold
                self._keep(end, start, len(line), is_in_period=time >= since or not is_dated)

    def _keep(self, end: re.Match[bytes], start: int, length: int, *, is_in_period: bool) -> None:
        name = end[3]
        if is_in_period:
            self.counts[end[2].decode()] += 1
        if name is None:
            (self._others if is_in_period else self._before).extend((start, length))
            return
        places = self._requests.get(name)
        if places is None:
            if is_refusal(end[2].decode()):  # of a request that never was: anybody can name one
                (self._others if is_in_period else self._before).extend((start, length))
                return
            places = self._requests[name] = _Places()
        places.at.extend((start, length))
        places.in_period = places.in_period or is_in_period

    def _read(self, places: array[int]) -> Iterator[dict[str, Any]]:
        handle = self._stream.fileno()
        for place in range(0, len(places), 2):
            line = os.pread(handle, places[place + 1], places[place])
            yield {**_entry_in(line), "place": (places[place], places[place + 1])}


def _entry_in(line: bytes) -> dict[str, Any]:
    """Return an entry with its `fault`, which is None where it can be told."""
    try:
        entry: dict[str, Any] = from_json(line[_BODY:-2], allow_inf_nan=False, cache_strings="keys")
        fault = find_fault(entry)
    except ValueError:
        fault = "it cannot be read as JSON"
    if fault is None:
        return {**entry, "fault": None}
    end = _end_of(line)  # which is all that is sure
    request_id = end[3].decode() if end[3] else None
    facts = {"index": int(end[1]), "kind": end[2].decode(), "request_id": request_id, "time": end[4].decode()}
    return {**facts, "actor": "", "data": {}, "fault": fault}


def _end_of(line: bytes) -> re.Match[bytes]:
    """Return the end of an entry's line; raise `VerificationError` where it has none."""
    end = _END.fullmatch(line, line.rfind(b',"index":'))
    if end is None:
        found = _INDEX.search(line)
        named = f"entry {int(found[1])}" if found else "an entry"
        raise VerificationError(
            f"{named} has not the form of a ledger entry; ask who wrote it, and with which version"
        )
    return end


def _is_backdated(time: bytes, latest: bytes) -> bool:
    return time_of(latest.decode()) - time_of(time.decode()) > _LEEWAY


def _is_time(time: bytes) -> bool:
    try:
        time_of(time.decode())
    except InvalidRequestError:
        return False
    return True
