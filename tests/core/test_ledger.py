"""Whatever is done to an exported ledger is found, and named."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from airflow_approvals.core.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from airflow_approvals.core.errors import InvalidRequestError, LedgerTamperedError, VerificationError
from airflow_approvals.core.export import LedgerReport, verify_export, write_export
from airflow_approvals.core.ledger import entry_body
from airflow_approvals.core.merkle import Frontier, grow, leaf_hash, root_of
from airflow_approvals.core.model import EntryDraft
from airflow_approvals.core.signature import PublicKeys, by_keyid
from airflow_approvals.keys import KeySigner

SIGNER = KeySigner(CryptoSigner.generate_ed25519())
OTHER = KeySigner(CryptoSigner.generate_ed25519())
KEYS = by_keyid([SIGNER.public_key])
NOW = datetime(2026, 1, 31, 8, 15, tzinfo=UTC)
ORIGIN = "example.org/approvals"
SIZE = 40
EVERY = 10  # entries between checkpoints
Lines = list[bytes]


def draft(number: int, **changes: Any) -> EntryDraft:
    facts: dict[str, Any] = {
        "kind": "vote.cast",
        "request_id": f"request-{number // 4}",
        "actor": "Zoë",
        "time": NOW + timedelta(seconds=number),
        "data": {"verdict": "approve", "n": number, "note": 'a "quote", a\nline, \u2028, 承認', "index": 7},
    }
    return EntryDraft(**facts | changes)


def checkpoint_of(bodies: Lines, *, signer: KeySigner = SIGNER, origin: str = ORIGIN) -> str:
    frontier = Frontier()
    for body in bodies:
        frontier, _ = grow(frontier, leaf_hash(body))
    return sign_checkpoint(origin=origin, size=len(bodies), root=root_of(frontier), time=NOW, signer=signer)


def export_of(bodies: Lines, *, every: int = EVERY, signer: KeySigner = SIGNER, spacing: int = 1) -> Lines:
    stream = io.BytesIO()
    notes = [checkpoint_of(bodies[:size], signer=signer) for size in range(every, len(bodies) + 1, every)]
    write_export(
        stream,
        keys=[signer.public_key],
        head=checkpoint_of(bodies, signer=signer),
        entries=((body, leaf_hash(body)) for body in bodies),
        checkpoints=notes,
        spacing=spacing,
    )
    return stream.getvalue().splitlines(keepends=True)


BODIES = [entry_body(draft(number), number) for number in range(SIZE)]


@cache
def good_export() -> tuple[bytes, ...]:
    return tuple(export_of(BODIES))


def verify(lines: Lines, keys: PublicKeys | None = KEYS, known: tuple[Checkpoint, ...] = ()) -> LedgerReport:
    return verify_export(io.BytesIO(b"".join(lines)), keys, known=known)


def line_of(body: bytes) -> bytes:
    return b'["' + leaf_hash(body).hex().encode() + b'",' + body + b"]\n"


def at(index: int) -> int:
    """Return the line of entry `index`: behind the header and the checkpoints before it."""
    return 1 + index + index // EVERY


def changed(lines: Lines, index: int, line: bytes) -> Lines:
    return [*lines[: at(index)], line, *lines[at(index) + 1 :]]


def moved(lines: Lines, index: int, to: int) -> Lines:
    rest = [*lines[: at(index)], *lines[at(index) + 1 :]]
    return [*rest[:to], lines[at(index)], *rest[to:]]


def swapped_with(lines: Lines, index: int, other: int) -> Lines:
    lines = list(lines)
    lines[at(index)], lines[at(other)] = lines[at(other)], lines[at(index)]
    return lines


def renumbered(bodies: Lines) -> Lines:
    """Return the bodies with the indexes of their places, as a forger without the key would write them."""
    return [
        body.replace(b'"index":%d,"kind"' % old_index(body), b'"index":%d,"kind"' % n)
        for n, body in enumerate(bodies)
    ]


def old_index(body: bytes) -> int:
    return int(json.loads(body)["index"])


def forged(lines: Lines, bodies: Lines) -> Lines:
    """Return an export of `bodies`, consistent in itself, that carries the old signed checkpoints."""
    signed = [(number, line) for number, line in enumerate(lines) if line.startswith(b"{")]
    new = [line_of(body) for body in renumbered(bodies)]
    result = [*lines[:1]]
    for count, line in enumerate(new, start=1):
        result.append(line)
        result += [old for number, old in signed if number == at(count - 1) + 1]
    return result


def without(index: int) -> Lines:
    return [*BODIES[:index], *BODIES[index + 1 :]]


def doubled(index: int) -> Lines:
    return [*BODIES[: index + 1], BODIES[index], *BODIES[index + 1 :]]


FORGED = entry_body(draft(999, actor="mallory"), 0)


def forgery(index: int) -> bytes:
    return entry_body(draft(index, actor="mallory"), index)


Tamper = Callable[[Lines, int], Lines]
NAMED: dict[str, Tamper] = {
    "body changed": lambda e, i: changed(e, i, e[at(i)].replace(b"approve", b"approvX")),
    "body of another entry": lambda e, i: changed(e, i, e[at(i)][:68] + e[at((i + 1) % SIZE)][68:]),
    "leaf changed": lambda e, i: changed(e, i, b'["' + leaf_hash(b"x").hex().encode() + e[at(i)][66:]),
    "leaf in capitals": lambda e, i: changed(e, i, e[at(i)][:66].upper() + e[at(i)][66:]),
    "index inside the body changed": lambda e, i: changed(e, i, line_of(entry_body(draft(i), i + 1))),
    "index inside the body gone": lambda e, i: changed(
        e, i, line_of(BODIES[i].replace(b'"index":%d,"kind"' % i, b'"kind"'))
    ),
    "index only inside the data": lambda e, i: changed(
        e,
        i,
        line_of(
            b'{"actor":"a","data":{"x":1,"index":%d,"kind":"a.b","request_id":null,"time":"1","v":1}}' % i
        ),
    ),
    "another first field": lambda e, i: changed(e, i, line_of(BODIES[i].replace(b'{"actor"', b'{"Actor"'))),
    "not JSON": lambda e, i: changed(e, i, line_of(b"\x00\xff")),
    "another version": lambda e, i: changed(e, i, line_of(BODIES[i].replace(b'"v":1', b'"v":2'))),
    "dropped": lambda e, i: [*e[: at(i)], *e[at(i) + 1 :]],
    "swapped with the next": lambda e, i: swapped_with(e, min(i, SIZE - 2), min(i, SIZE - 2) + 1),
    "line emptied": lambda e, i: changed(e, i, b"\n"),
    "line cut short": lambda e, i: changed(e, i, e[at(i)][:50] + b"\n"),
    "a blank before the end": lambda e, i: changed(e, i, e[at(i)][:-2] + b" ]\n"),
    "truncated before it": lambda e, i: e[: at(i)],
    "truncated within it": lambda e, i: [*e[: at(i)], e[at(i)][:-1]],
}
FIRST_MIDDLE_LAST = pytest.mark.parametrize("index", [0, 17, SIZE - 1], ids=["first", "middle", "last"])


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize("tamper", NAMED.values(), ids=NAMED.keys())
def test_tampering_is_found_and_the_entry_is_named(tamper: Tamper, index: int) -> None:
    with pytest.raises(LedgerTamperedError, match="entr") as caught:
        verify(tamper(list(good_export()), index))
    swapped_last = tamper is NAMED["swapped with the next"] and index == SIZE - 1
    assert caught.value.index == (index - 1 if swapped_last else index)


NARROWED: dict[str, Tamper] = {
    "body and leaf changed": lambda e, i: changed(e, i, line_of(forgery(i))),
    "dropped, the rest renumbered": lambda e, i: forged(e, without(i)),
    "inserted, the rest renumbered": lambda e, i: forged(e, [*BODIES[:i], FORGED, *BODIES[i:]]),
    "duplicated, the rest renumbered": lambda e, i: forged(e, doubled(i)),
    "replaced, and all leaves": lambda e, i: forged(e, [*BODIES[:i], FORGED, *BODIES[i + 1 :]]),
}


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize("tamper", NARROWED.values(), ids=NARROWED.keys())
def test_tampering_with_fitting_leaf_hashes_is_narrowed_by_checkpoints(tamper: Tamper, index: int) -> None:
    with pytest.raises(LedgerTamperedError) as caught:
        verify(tamper(list(good_export()), index))
    start = index // EVERY * EVERY
    # A last entry that is gone or doubled shows in the count alone.
    if caught.value.index is None:
        assert f"between entry {start} and {start + EVERY - 1}" in str(caught.value)
    else:
        assert index == SIZE - 1
        assert caught.value.index in (SIZE - 1, SIZE)


def test_with_a_checkpoint_per_entry_even_a_fitting_forgery_is_named() -> None:
    lines = export_of(BODIES[:12], every=1)
    lines[1 + 2 * 5] = line_of(forgery(5))
    with pytest.raises(LedgerTamperedError, match="entry 5: what stands there") as caught:
        verify(lines)
    assert caught.value.index == 5


AGAIN: dict[str, Callable[[Lines, int], tuple[Lines, int]]] = {
    # Behind a confirmed checkpoint the first of the two is certain, and the second is the false one.
    "duplicated": lambda e, i: ([*e[: at(i) + 1], *e[at(i) :]], SIZE if i == SIZE - 1 else i),
    "inserted with the same index": lambda e, i: ([*e[: at(i)], line_of(forgery(i)), *e[at(i) :]], i),
    "repeated at the end": lambda e, i: ([*e, e[at(i)]], SIZE),
}


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize("tamper", AGAIN.values(), ids=AGAIN.keys())
def test_an_index_that_comes_twice_is_named(
    tamper: Callable[[Lines, int], tuple[Lines, int]], index: int
) -> None:
    lines, expected = tamper(list(good_export()), index)
    with pytest.raises(LedgerTamperedError) as caught:
        verify(lines)
    if caught.value.index is None:  # a forgery that comes first and fits by itself, up to the signed head
        assert "between entry 30 and 39" in str(caught.value)
    else:
        assert caught.value.index == expected


def test_entries_beyond_the_signed_head_are_refused() -> None:
    with pytest.raises(LedgerTamperedError, match="entry 40 not covered") as caught:
        verify([*good_export(), line_of(entry_body(draft(SIZE), SIZE))])
    assert caught.value.index == SIZE


@pytest.mark.parametrize("index", [EVERY - 1, 2 * EVERY - 1])
def test_an_entry_dropped_just_before_a_checkpoint_is_named(index: int) -> None:
    lines = list(good_export())
    with pytest.raises(LedgerTamperedError, match=f"entry {index} missing or out of place") as caught:
        verify([*lines[: at(index)], *lines[at(index) + 1 :]])
    assert caught.value.index == index


def test_an_entry_moved_to_another_place_is_named() -> None:
    with pytest.raises(LedgerTamperedError, match="entry 3 missing: entry 4 stands in its place") as caught:
        verify(moved(list(good_export()), 3, at(20)))
    assert caught.value.index == 3


CHECKPOINT_LINE = at(EVERY) - 1
CHECKPOINTS: dict[str, Callable[[Lines], bytes]] = {
    "size changed": lambda e: e[CHECKPOINT_LINE].replace(b"\\n10\\n", b"\\n11\\n"),
    "signature changed": lambda e: e[CHECKPOINT_LINE][:-10] + b"AAAAA" + e[CHECKPOINT_LINE][-5:],
    "of another size": lambda e: e[at(2 * EVERY) - 1],
    "by another key": lambda e: note_line(checkpoint_of(BODIES[:EVERY], signer=OTHER)),
    "of another ledger": lambda e: note_line(checkpoint_of(BODIES[:EVERY], origin="other.example")),
    "of a fork": lambda e: note_line(checkpoint_of([*BODIES[: EVERY - 1], forgery(EVERY - 1)])),
    "no text": lambda e: b'{"checkpoint":7}\n',
    "no JSON": lambda e: b'{"checkpoint":\n',
    "a list in depth": lambda e: b'{"checkpoint":' + b"[" * 100_000 + b"\n",
}


def note_line(note: str) -> bytes:
    return json.dumps({"checkpoint": note}).encode() + b"\n"


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_a_changed_checkpoint_inside_the_file_is_found(make: Callable[[Lines], bytes]) -> None:
    lines = list(good_export())
    assert lines[CHECKPOINT_LINE].startswith(b'{"checkpoint"')
    lines[CHECKPOINT_LINE] = make(lines)
    with pytest.raises(LedgerTamperedError):
        verify(lines)


HEADERS: dict[str, Callable[[Lines], bytes]] = {
    "gone": lambda e: b"",
    "no JSON": lambda e: b"{\n",
    "another form": lambda e: e[0].replace(b"export/1", b"export/2"),
    "no head": lambda e: e[0].replace(b'"head"', b'"tail"'),
    "head changed": lambda e: e[0].replace(b"\\n40\\n", b"\\n39\\n"),
    "head by another key": lambda e: export_of(BODIES, signer=OTHER)[0],
}


@pytest.mark.parametrize("make", HEADERS.values(), ids=HEADERS.keys())
def test_a_changed_header_is_found(make: Callable[[Lines], bytes]) -> None:
    lines = list(good_export())
    with pytest.raises(VerificationError):
        verify([make(lines), *lines[1:]])


def test_an_older_head_put_before_a_longer_ledger_is_found() -> None:
    with pytest.raises(LedgerTamperedError, match="entries 20 to 39 not covered"):
        verify([export_of(BODIES[:20])[0], *good_export()[1:]])


def known(bodies: Lines) -> Checkpoint:
    return verify_checkpoint(checkpoint_of(bodies), KEYS)


def test_a_checkpoint_from_elsewhere_shows_that_the_ledger_was_cut_back() -> None:
    cut = export_of(BODIES[:30])
    assert verify(cut).entries == 30
    with pytest.raises(LedgerTamperedError, match="entries 30 to 39 missing") as caught:
        verify(cut, known=(known(BODIES),))
    assert caught.value.index == 30


@FIRST_MIDDLE_LAST
def test_a_checkpoint_from_elsewhere_shows_a_fork_by_the_holder_of_the_key(index: int) -> None:
    forked = export_of([*BODIES[:index], forgery(index), *BODIES[index + 1 :]])
    assert verify(forked).entries == SIZE
    with pytest.raises(LedgerTamperedError, match="rewritten or forked"):
        verify(forked, known=(known(BODIES[:5]), known(BODIES), known(BODIES)))


def test_checkpoints_from_elsewhere_that_agree_are_counted() -> None:
    report = verify(list(good_export()), known=(known([]), known(BODIES[:7]), known(BODIES)))
    assert report.known_checkpoints == 3


def test_a_checkpoint_of_another_ledger_cannot_confirm_this_one() -> None:
    other = verify_checkpoint(checkpoint_of(BODIES, origin="other.example"), KEYS)
    with pytest.raises(VerificationError, match="another ledger"):
        verify(list(good_export()), known=(other,))


def test_an_untouched_ledger_verifies() -> None:
    report = verify(list(good_export()))
    assert (report.entries, report.checkpoints, report.origin) == (SIZE, SIZE // EVERY, ORIGIN)
    assert report.root == report.head.root.hex()
    assert report.keyids == (SIGNER.keyid,)
    assert not report.trust_on_first_use


def test_the_key_inside_the_file_is_used_only_if_none_is_given_and_the_report_says_so() -> None:
    assert verify(list(good_export()), None).trust_on_first_use
    for keys in ({}, by_keyid([OTHER.public_key])):
        with pytest.raises(VerificationError, match="known keys"):
            verify(list(good_export()), keys)
    # Anybody can make such a file with a key of their own; that is why.
    assert verify(export_of([forgery(0)], signer=OTHER), None).trust_on_first_use


def test_an_empty_ledger_verifies() -> None:
    assert verify(export_of([])).entries == 0


def test_an_empty_ledger_has_one_root_only() -> None:
    note = sign_checkpoint(origin=ORIGIN, size=0, root=b"x" * 32, time=None, signer=SIGNER)
    stream = io.BytesIO()
    write_export(stream, keys=[SIGNER.public_key], head=note, entries=[])
    with pytest.raises(LedgerTamperedError, match="empty ledger"):
        verify([stream.getvalue()])


def test_one_checkpoint_per_spacing_is_exported() -> None:
    lines = export_of(BODIES, every=1, spacing=15)
    assert [at for at, line in enumerate(lines) if line.startswith(b'{"checkpoint"')] == [16, 32]
    assert verify(lines).checkpoints == 3


ODD_NOTES: dict[str, Callable[[], str]] = {
    "of another history": lambda: checkpoint_of([*BODIES[:5], forgery(5), BODIES[6]]),
    "unreadable": lambda: "no note",
    "of another history, at the head": lambda: checkpoint_of([*BODIES[:-1], forgery(SIZE - 1)]),
}


@pytest.mark.parametrize("make", ODD_NOTES.values(), ids=ODD_NOTES.keys())
def test_a_kept_checkpoint_that_disagrees_is_exported_whatever_the_spacing(make: Callable[[], str]) -> None:
    stream = io.BytesIO()
    write_export(
        stream,
        keys=[SIGNER.public_key],
        head=checkpoint_of(BODIES),  # signed over a rewritten history, as a service would that was deceived
        entries=((body, leaf_hash(body)) for body in BODIES),
        checkpoints=[checkpoint_of([]), checkpoint_of(BODIES[:4]), make()],
    )
    assert stream.getvalue().count(b'{"checkpoint"') == 1
    with pytest.raises(LedgerTamperedError):
        verify([stream.getvalue()])


def test_an_export_ends_at_its_head_while_the_ledger_grows() -> None:
    stream = io.BytesIO()
    written = write_export(
        stream,
        keys=[SIGNER.public_key],
        head=checkpoint_of(BODIES[:7]),
        entries=((body, leaf_hash(body)) for body in BODIES),
        checkpoints=[checkpoint_of(BODIES[:3]), checkpoint_of(BODIES)],
        spacing=1,
    )
    assert written == 7
    assert verify([stream.getvalue()]).checkpoints == 2


def test_a_damaged_ledger_can_be_exported_and_is_then_named() -> None:
    entries = [(body, leaf_hash(body)) for body in BODIES]
    entries[8] = (forgery(8), entries[8][1])
    stream = io.BytesIO()
    write_export(stream, keys=[SIGNER.public_key], head=checkpoint_of(BODIES), entries=entries)
    with pytest.raises(LedgerTamperedError) as caught:
        verify([stream.getvalue()])
    assert caught.value.index == 8


def test_every_line_of_an_export_is_json_and_holds_the_entry_as_it_was_hashed() -> None:
    values = [json.loads(line) for line in good_export()]
    assert [value[1]["index"] for value in values if isinstance(value, list)] == list(range(SIZE))
    assert values[3][1]["data"]["note"] == 'a "quote", a\nline, \u2028, 承認'


@given(st.integers(0, 1 << 20), st.integers(1, 255))
def test_any_changed_byte_of_any_entry_is_found(position: int, change: int) -> None:
    export = bytearray(b"".join(good_export()))
    start = len(good_export()[0])
    export[start + position % (len(export) - start)] ^= change
    with pytest.raises(VerificationError):
        verify([bytes(export)])


def test_memory_does_not_grow_with_the_ledger(tmp_path: Any) -> None:
    peaks = []
    for count in (2_000, 8_000):
        bodies = [entry_body(draft(number), number) for number in range(count)]
        path = tmp_path / f"{count}.jsonl"
        path.write_bytes(b"".join(export_of(bodies, every=count)))
        tracemalloc.start()
        with path.open("rb") as stream:
            verify_export(stream, KEYS)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000


def test_an_endless_line_is_not_read_into_memory() -> None:
    asked: list[int] = []

    class Endless(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            asked.append(size or -1)
            return good_export()[0] if len(asked) == 1 else b"x" * 100

    with pytest.raises(LedgerTamperedError, match="cut off, or longer than"):
        verify_export(Endless(), KEYS)
    assert all(0 < size <= 1 << 24 for size in asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": ""},
        {"kind": "vote"},
        {"kind": 'vote."cast'},
        {"request_id": ""},
        {"request_id": 'a"b'},
        {"request_id": "a\\b"},
        {"time": NOW.replace(tzinfo=None)},
        {"data": {"share": float("nan")}},
        {"data": {"rows": 2**60}},
    ],
    ids=str,
)
def test_an_entry_that_could_not_be_verified_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        entry_body(draft(1, **changes), 1)


def test_an_entry_has_no_negative_index() -> None:
    with pytest.raises(InvalidRequestError):
        entry_body(draft(1), -1)


def test_an_entry_is_canonical_json_with_a_time_in_utc() -> None:
    east = datetime.fromisoformat("2026-01-31T10:15:00+02:00")
    body = entry_body(draft(3, time=east, request_id=None, data={"b": 1, "a": "é"}), 3)
    assert (
        body
        == (
            '{"actor":"Zoë","data":{"a":"é","b":1},"index":3,"kind":"vote.cast","request_id":null,'
            '"time":"2026-01-31T08:15:00.000000Z","v":1}'
        ).encode()
    )
