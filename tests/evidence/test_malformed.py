"""Entries that verify and lack what their kind must hold: each is named, and all else is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.main import main
from airflow_approvals.core.canonical import canonical_json
from airflow_approvals.core.checkpoint import sign_checkpoint
from airflow_approvals.core.errors import VerificationError
from airflow_approvals.core.export import write_export
from airflow_approvals.core.merkle import Frontier, grow, leaf_hash, root_of
from airflow_approvals.core.signature import by_keyid, public_key_from_json
from airflow_approvals.evidence.package import LEDGER, RECEIPTS, Package, make_package, verify_package
from tests.evidence.conftest import ORIGIN, Made

Place = tuple[str | int, ...]

STRANGE: tuple[Any, ...] = (None, 5, ["strange", 5], {"strange": 5})
"""What a fact may be instead."""

NEEDED: dict[str, tuple[Place, ...]] = {
    "request.opened": (
        ("action", "kind"),
        ("evidence", "datasets", 0, "rows"),
        ("requesters",),
        ("origin", "dag_id"),
    ),
    "vote.cast": (("vote", "voter"), ("vote", "groups"), ("vote",)),
    "request.approved": (("because",), ("receipt_sha256",)),
    "receipt.redeemed": (),
    "outcome.reported": (("outcome", "published"),),
    "request.revoked": (("because",),),
    "request.expired": (("because",),),
    "glass.broken": (("reason",), ("group",)),
    "attempt.refused": (("because",),),
    "policy.loaded": (("rules",), ("rules", 0, "require", 0, "group"), ("digest",)),
    "key.added": (("keyid",),),
}
"""What is left out when it is missing, for each kind."""


@pytest.fixture(scope="module")
def bodies(made: Made) -> list[bytes]:
    lines = (made.folder / LEDGER).read_bytes().splitlines()
    return [line[68:-1] for line in lines if line.startswith(b'["')]


def kinds_in(bodies: list[bytes]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, body in enumerate(bodies):
        found.setdefault(json.loads(body)["kind"], []).append(index)
    return found


def places_in(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield where every fact stands; of a list its first."""
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    )
    for name, fact in inner:
        yield (*at, name)
        yield from places_in(fact, (*at, name))


def with_fact(body: bytes, place: Place, *instead: Any) -> bytes:
    """Return an entry with another fact in one place, or without it."""
    entry = json.loads(body)
    holder = entry["data"]
    for name in place[:-1]:
        holder = holder[name]
    if instead:
        holder[place[-1]] = deepcopy(instead[0])
    else:
        del holder[place[-1]]
    return canonical_json(entry)


def signed(made: Made, bodies: list[bytes], home: Path) -> Path:
    """Return a folder with a ledger of these entries, written by somebody who has the key."""
    folder, signer, frontier = home / "package", made.office.signer, Frontier()
    folder.mkdir()
    leaves = [leaf_hash(body) for body in bodies]
    for leaf in leaves:
        frontier, _ = grow(frontier, leaf)
    note = sign_checkpoint(
        origin=ORIGIN, size=len(bodies), root=root_of(frontier), time=made.office.now, signer=signer
    )
    key = public_key_from_json(signer.public_key_json())
    with (folder / LEDGER).open("wb") as stream:
        write_export(stream, keys=[key], head=note, entries=zip(bodies, leaves, strict=True))
    return folder


def remade(made: Made, bodies: list[bytes], home: Path) -> Package:
    """Make the package about these entries, and verify it."""
    folder = signed(made, bodies, home)
    envelopes = home / "receipts"
    envelopes.write_bytes((made.folder / RECEIPTS).read_bytes())
    package = make_package(folder, envelopes, made.package.period, keys=None, made_at=made.office.now)
    key = public_key_from_json(made.office.signer.public_key_json())
    assert verify_package(folder, by_keyid([key])).checks == package.checks
    return package


def unreadable(package: Package) -> list[str]:
    return [notable.what for notable in package.summary.notable["unreadable"]]


@pytest.mark.parametrize(
    ("kind", "place"),
    [(kind, place) for kind, places in NEEDED.items() for place in places],
    ids=lambda value: value if isinstance(value, str) else ".".join(map(str, value)),
)
def test_an_entry_without_a_fact_is_a_finding_by_its_index_and_all_else_is_told(
    made: Made, bodies: list[bytes], tmp_path: Path, kind: str, place: Place
) -> None:
    index = kinds_in(bodies)[kind][0]
    changed = [*bodies[:index], with_fact(bodies[index], place), *bodies[index + 1 :]]
    package = remade(made, changed, tmp_path)
    fact = ".".join(part for part in place if isinstance(part, str))
    assert unreadable(package) == [f"entry {index} ({kind}): its fact {fact} is missing"]
    assert not {check.name: check.holds for check in package.checks}["entries_readable"]
    assert package.summary.cases == made.package.summary.cases


@pytest.mark.parametrize("kind", NEEDED)
def test_no_fact_of_any_type_ends_in_anything_but_a_finding(
    made: Made, bodies: list[bytes], tmp_path: Path, kind: str
) -> None:
    """All facts of an entry at once in one way or another: each on its own was tried in the same way."""
    index = kinds_in(bodies)[kind][0]
    for number, strange in enumerate(STRANGE):
        body = bodies[index]
        for place in {place[:1] for place in places_in(json.loads(body)["data"])}:
            body = with_fact(body, place, strange)
        (home := tmp_path / str(number)).mkdir()
        package = remade(made, [*bodies[:index], body, *bodies[index + 1 :]], home)
        assert [each.startswith(f"entry {index} ({kind}): ") for each in unreadable(package)] in ([True], [])
        assert bool(unreadable(package)) or not NEEDED[kind]


BODIES: dict[str, tuple[bytes, bytes]] = {
    "facts that are a list": (rb'"data":\{.*\},"index"', b'"data":[],"index"'),
    "no facts": (rb'"data":\{.*\},"index"', b'"index"'),
    "an actor that is a number": (rb'\{"actor":', b'{"actor":"","actor":7,"was":'),
    "no JSON": (rb'"data":\{', b'"data":{{'),
    "no UTF-8": (rb'"data":\{', b'"data":{"x":"\xff",'),
    "a number without end": (rb'"data":\{', b'"data":{"x":NaN,'),
    "too deep": (rb'"data":\{', b'"data":{"x":' + b"[" * 9999 + b"]" * 9999 + b","),
    "half a character": (rb'"data":\{', b'"data":{"x":"\\ud800",'),
    "a day that there is not": (rb'"time":"2026-03', b'"time":"2026-13'),
    "a time that is none": (rb'"time":"[^"]+"', b'"time":"Z"'),
}


@pytest.mark.parametrize(("old", "new"), BODIES.values(), ids=BODIES.keys())
def test_an_entry_of_another_form_is_a_finding(
    made: Made,
    bodies: list[bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: bytes,
    new: bytes,
) -> None:
    index = kinds_in(bodies)["vote.cast"][0]
    body, changes = re.subn(old, lambda _: new, bodies[index], count=1)
    assert changes == 1
    package = remade(made, [*bodies[:index], body, *bodies[index + 1 :]], tmp_path)
    (told,) = unreadable(package)
    assert told.startswith(f"entry {index} (vote.cast): ")
    for name in ("index.html", "exceptions.csv"):
        assert f"entry {index} (vote.cast): " in (package.path / name).read_text(encoding="utf-8")
    assert main(["verify", str(package.path)]) == Exit.OK
    assert "look at     Does every entry hold what its kind must hold?" in capsys.readouterr().out


def test_a_request_id_that_could_never_be_one_is_refused_by_its_entry(
    made: Made, bodies: list[bytes], tmp_path: Path
) -> None:
    index = kinds_in(bodies)["vote.cast"][0]
    body = re.sub(rb'"request_id":"[^"]+"', b'"request_id":"a b"', bodies[index])
    with pytest.raises(VerificationError, match=f"entry {index} has not the form of a ledger entry"):
        remade(made, [*bodies[:index], body, *bodies[index + 1 :]], tmp_path)


def test_a_decision_that_cannot_be_told_leaves_what_was_published_without_an_approval(
    made: Made, bodies: list[bytes], tmp_path: Path
) -> None:
    index = kinds_in(bodies)["request.approved"][0]
    body = with_fact(bodies[index], ("receipt_sha256",))
    package = remade(made, [*bodies[:index], body, *bodies[index + 1 :]], tmp_path)
    assert package.summary.receipts == made.package.summary.receipts - 1
    assert not {check.name: check.holds for check in package.checks}["approved_before_publish"]
