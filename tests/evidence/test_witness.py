"""Whoever has database and signing key can make a ledger that agrees with itself, and not with a witness.

Every attack here is complete: triggers dropped, rows rewritten, the whole tree computed again, and every
checkpoint signed anew with the real key. So it must pass a verification without the witness, or the attack
would prove nothing.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, text, update

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.core.canonical import canonical_json
from airflow_approvals.core.errors import LedgerTamperedError, ServiceUnavailableError, VerificationError
from airflow_approvals.core.export import verify_export
from airflow_approvals.core.heads import head_of
from airflow_approvals.core.merkle import Frontier, grow, leaf_hash
from airflow_approvals.core.signature import by_keyid, public_keys_from_json
from airflow_approvals.keys import load_signer
from airflow_approvals.store.append_only import guard_names
from airflow_approvals.store.schema import create_tables
from airflow_approvals.store.sql import SqlStore, create_store
from airflow_approvals.store.tables import checkpoints, ledger_entries, ledger_head, ledger_nodes
from airflow_approvals.web.export import export_chunks
from airflow_approvals.web.ledger import ensure_checkpoint, public_keys
from airflow_approvals.witness import open_witness, publish, read_witness
from tests.evidence.conftest import ORIGIN, Office, a_busy_day, an_export

Bodies = list[bytes]
Rewrite = Callable[[Bodies], Bodies]


def renumbered(bodies: Bodies) -> Bodies:
    return [canonical_json({**json.loads(body), "index": index}) for index, body in enumerate(bodies)]


def edited(bodies: Bodies) -> Bodies:
    """Turn the denial into an approval of nobody's."""
    return [body.replace(b'"because":"denied by bob"', b'"because":"denied by eve"') for body in bodies]


def forked(bodies: Bodies) -> Bodies:
    """Go on from half-way with another history of the same length."""
    half = len(bodies) // 2
    return renumbered([*bodies[:half], *bodies[:half], *bodies][: len(bodies)])


REWRITES: dict[str, Rewrite] = {
    "truncated": lambda bodies: bodies[:-5],
    "truncated to nothing": lambda bodies: bodies[:2],
    "edited": edited,
    "one entry taken out": lambda bodies: renumbered([*bodies[:7], *bodies[8:]]),
    "one entry put in": lambda bodies: renumbered([*bodies[:7], bodies[3], *bodies[7:]]),
    "reordered": lambda bodies: renumbered([*bodies[:5], bodies[6], bodies[5], *bodies[7:]]),
    "forked": forked,
}


class Attacker:
    """Owns the database and the signing key."""

    def __init__(self, office: Office) -> None:
        self.office = office

    def rewrite(self, change: Rewrite) -> None:
        """Replace the ledger, its tree and every checkpoint by another one, signed."""
        store = self.office.store
        bodies = [entry.body for entry in store.entries_after(-1, limit=100_000)]
        changed = change(bodies)
        assert changed != bodies
        with store.engine.begin() as connection:
            for name in guard_names("sqlite"):
                connection.execute(text(f"DROP TRIGGER {name}"))
            for table in (ledger_entries, ledger_nodes, checkpoints):
                connection.execute(delete(table))
            frontier = Frontier()
            for body in changed:
                entry = json.loads(body)
                values = {"idx": entry["index"], "kind": entry["kind"], "request_id": entry["request_id"]}
                connection.execute(insert(ledger_entries).values(body=body, **values))
                frontier, nodes = grow(frontier, leaf_hash(body))
                for node in nodes:
                    row = {"level": node.level, "idx": node.index, "hash": node.hash}
                    connection.execute(insert(ledger_nodes).values(**row))
            head = {"size": frontier.size, "peaks": b"".join(frontier.peaks)}
            connection.execute(update(ledger_head).values(**head))

    def sign_anew(self) -> None:
        ensure_checkpoint(self.office.service, ORIGIN, now=self.office.now)


@pytest.fixture
def watched(tmp_path: Path) -> tuple[Office, Path]:
    """An office whose heads were published twice: in the middle, and at the end."""
    store: SqlStore = create_store(f"sqlite:///{tmp_path / 'airflow.db'}")
    create_tables(store.engine)
    office = Office(store, tmp_path)
    witness = tmp_path / "witness"
    office.ask(an_export("first"))
    witnessed(office, witness)
    a_busy_day(office)
    witnessed(office, witness)
    return office, witness


def witnessed(office: Office, witness: Path) -> bool:
    size, note = ensure_checkpoint(office.service, ORIGIN, now=office.now)
    keys = public_keys_from_json(public_keys(office.service))
    return publish(open_witness(str(witness)), office.store, size=size, note=note, keys=keys)


def exported(office: Office, path: Path) -> Path:
    _, head = ensure_checkpoint(office.service, ORIGIN, now=office.now)
    path.write_bytes(b"".join(export_chunks(office.service, head)))
    return path


def test_an_honest_ledger_agrees_with_its_witness_and_goes_on(
    watched: tuple[Office, Path], tmp_path: Path
) -> None:
    office, witness = watched
    assert witnessed(office, witness) is False  # nothing is new
    office.ask(an_export("later"))
    assert witnessed(office, witness) is True
    office.ask(an_export("not witnessed yet"))
    ledger = exported(office, tmp_path / "ledger.jsonl")
    assert main(["ledger", "verify", str(ledger), "--witness", str(witness)]) == Exit.OK
    assert len(read_witness(open_witness(f"file://{witness}"), None).checkpoints) == 3


@pytest.mark.parametrize("change", REWRITES.values(), ids=REWRITES.keys())
def test_a_ledger_rewritten_with_database_and_key_is_caught(
    watched: tuple[Office, Path], tmp_path: Path, change: Rewrite
) -> None:
    office, witness = watched
    attacker = Attacker(office)
    attacker.rewrite(change)
    attacker.sign_anew()
    ledger = exported(office, tmp_path / "ledger.jsonl")
    keys = by_keyid([office.signer.public_key])
    verify_export(io.BytesIO(ledger.read_bytes()), keys)  # it agrees with itself, under the real key
    assert main(["ledger", "verify", str(ledger)]) == Exit.OK
    assert main(["ledger", "verify", str(ledger), "--witness", str(witness)]) == Exit.NOT_VERIFIED
    with pytest.raises(LedgerTamperedError):
        witnessed(office, witness)  # and the service itself publishes nothing over it


COPIES: dict[str, Callable[[str], str]] = {
    "the line": lambda line: line,
    "as Slack shows it": lambda line: f"Approvals  09:14\n`{line}`\n",
    "an export of the channel": lambda line: json.dumps([{"text": f"`{line}`"}]).replace("/", "\\/"),
    "the event in lineage": lambda line: json.dumps({"run": {"facets": {"c": {"line": line}}}}, indent=2),
    "escaped for HTML": lambda line: json.dumps({"line": line}).replace("=", "\\u003d"),
}


@pytest.mark.parametrize("change", REWRITES.values(), ids=REWRITES.keys())
@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_a_line_copied_from_slack_or_lineage_is_a_witness_as_well(
    watched: tuple[Office, Path], tmp_path: Path, copy: Callable[[str], str], change: Rewrite
) -> None:
    office, _ = watched
    _, note = ensure_checkpoint(office.service, ORIGIN, now=office.now)
    told = copy(head_of(note).line)
    (tmp_path / "copied").write_text(told)
    ledger = exported(office, tmp_path / "ledger.jsonl")
    for witness in (str(tmp_path / "copied"), head_of(note).line):
        assert main(["ledger", "verify", str(ledger), "--witness", witness]) == Exit.OK
    attacker = Attacker(office)
    attacker.rewrite(change)
    attacker.sign_anew()
    rewritten = exported(office, tmp_path / "rewritten.jsonl")
    assert main(["ledger", "verify", str(rewritten)]) == Exit.OK
    for witness in (str(tmp_path / "copied"), head_of(note).line):
        assert main(["ledger", "verify", str(rewritten), "--witness", witness]) == Exit.NOT_VERIFIED


SPOILED: dict[str, Callable[[str], str]] = {
    "no line in it": lambda line: "Ledger head of nothing",
    "another root": lambda line: line.replace("root ", "root A", 1)[: len(line)],
    "another number of entries": lambda line: line.replace(" entries", "0 entries"),
    "the end of the signature is missing": lambda line: line[:-4],
    "of another ledger": lambda line: line.replace(ORIGIN, "other.example"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_copied_line_that_was_changed_does_not_speak(
    watched: tuple[Office, Path], tmp_path: Path, spoil: Callable[[str], str]
) -> None:
    office, _ = watched
    _, note = ensure_checkpoint(office.service, ORIGIN, now=office.now)
    (tmp_path / "copied").write_text(spoil(head_of(note).line))
    ledger = exported(office, tmp_path / "ledger.jsonl")
    found = main(["ledger", "verify", str(ledger), "--witness", str(tmp_path / "copied")])
    assert found == Exit.NOT_VERIFIED


def test_a_note_of_somebody_else_has_no_line(watched: tuple[Office, Path]) -> None:
    office, _ = watched
    _, note = ensure_checkpoint(office.service, ORIGIN, now=office.now)
    assert head_of(note).note == note
    with pytest.raises(VerificationError):
        head_of(note + "— witness.example AAAA\n")


def test_a_ledger_signed_anew_with_another_key_is_caught(
    watched: tuple[Office, Path], tmp_path: Path
) -> None:
    office, witness = watched
    attacker = Attacker(office)
    other = load_signer("", home=tmp_path / "other")

    def with_another_key(bodies: Bodies) -> Bodies:
        found = []
        for body in bodies:
            entry = json.loads(body)
            if entry["kind"] == "key.added":
                entry["data"] = {"keyid": other.keyid, "public_key": other.public_key_json()}
            found.append(canonical_json(entry))
        return found

    attacker.rewrite(with_another_key)
    office.service.signer = other
    attacker.sign_anew()
    ledger = exported(office, tmp_path / "ledger.jsonl")
    assert main(["ledger", "verify", str(ledger)]) == Exit.OK  # the key came with the ledger: no proof
    assert main(["ledger", "verify", str(ledger), "--witness", str(witness)]) == Exit.NOT_VERIFIED
    with pytest.raises(VerificationError):
        witnessed(office, witness)


def test_a_witness_that_was_cut_or_changed_does_not_speak(
    watched: tuple[Office, Path], tmp_path: Path
) -> None:
    office, witness = watched
    ledger = exported(office, tmp_path / "ledger.jsonl")
    notes = sorted(witness.glob("*.checkpoint"))
    spoiled = Path(shutil.copytree(witness, tmp_path / "spoiled"))
    shutil.copyfile(spoiled / notes[0].name, spoiled / notes[1].name)  # a head under another's name
    assert main(["ledger", "verify", str(ledger), "--witness", str(spoiled)]) == Exit.NOT_VERIFIED
    (spoiled / notes[1].name).write_text(notes[1].read_text().replace("evidence.example", "evidence.exemple"))
    assert main(["ledger", "verify", str(ledger), "--witness", str(spoiled)]) == Exit.NOT_VERIFIED
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["ledger", "verify", str(ledger), "--witness", str(empty)]) == Exit.NOT_VERIFIED


def test_who_comes_late_with_an_older_head_raises_no_alarm(watched: tuple[Office, Path]) -> None:
    """Two API servers publish side by side: the slower one has read its head before the other's."""
    office, witness = watched
    keys = public_keys_from_json(public_keys(office.service))
    office.ask(an_export("slow"))
    slow, note = ensure_checkpoint(office.service, ORIGIN, now=office.now)
    office.ask(an_export("fast"))
    assert witnessed(office, witness) is True
    assert publish(open_witness(str(witness)), office.store, size=slow, note=note, keys=keys) is True
    sizes = [checkpoint.size for checkpoint in read_witness(open_witness(str(witness)), keys).checkpoints]
    assert sizes == sorted(sizes)
    assert slow in sizes


def test_what_a_witness_has_is_never_written_again(watched: tuple[Office, Path]) -> None:
    office, witness = watched
    before = {path.name: path.read_text() for path in witness.iterdir()}
    folder = open_witness(str(witness))
    for name in before:
        folder.write_once(name, "something else")
    witnessed(office, witness)
    assert {path.name: path.read_text() for path in witness.iterdir()} == before


def test_a_head_that_could_not_be_written_leaves_nothing_that_silences_the_witness(
    watched: tuple[Office, Path],
) -> None:
    office, witness = watched
    before = sorted(path.name for path in witness.iterdir())
    with pytest.raises(UnicodeEncodeError):  # as a full disk, it fails in the middle
        open_witness(str(witness)).write_once("000000000099.checkpoint", "\ud800")
    assert sorted(path.name for path in witness.iterdir()) == before
    assert witnessed(office, witness) is False


def test_an_object_store_is_a_witness_too(watched: tuple[Office, Path]) -> None:
    office, _ = watched
    witness = "memory://witness/approvals"
    size, note = ensure_checkpoint(office.service, ORIGIN, now=office.now)
    keys = public_keys_from_json(public_keys(office.service))
    assert publish(open_witness(witness), office.store, size=size, note=note, keys=keys) is True
    assert publish(open_witness(witness), office.store, size=size, note=note, keys=keys) is False
    assert read_witness(open_witness(witness), keys).checkpoints[0].size == size


def test_a_witness_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailableError, match="cannot be reached"):
        open_witness("nosuchstore://x/y")
    (tmp_path / "a file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        open_witness(str(tmp_path / "a file" / "below")).write_once("x", "y")
