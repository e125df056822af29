"""The tree is RFC 6962's: published values, and a naive reading of the RFC, agree with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_approvals.core import merkle
from airflow_approvals.core.errors import InvalidRequestError, LedgerTamperedError
from airflow_approvals.core.merkle import Frontier, ReadNode, grow, leaf_hash, root_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rfc6962.json").read_text())
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]

sizes = st.integers(1, 70)


def proof_of(vector: dict[str, list[str]]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(step) for step in vector["proof"])


def grown(leaves: list[bytes]) -> tuple[Frontier, dict[tuple[int, int], bytes]]:
    frontier = Frontier()
    nodes: dict[tuple[int, int], bytes] = {}
    for leaf in leaves:
        frontier, complete = grow(frontier, leaf)
        nodes |= {(node.level, node.index): node.hash for node in complete}
    return frontier, nodes


def reader(nodes: dict[tuple[int, int], bytes]) -> ReadNode:
    return lambda level, index: nodes[level, index]


def many(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def naive_root(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"").digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_tree_heads_are_the_published_ones(size: int) -> None:
    frontier, _ = grown([leaf_hash(leaf) for leaf in LEAVES[:size]])
    assert root_of(frontier) == ROOTS[size]


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda v: f"{v['index']} of {v['size']}")
def test_inclusion_proofs_are_the_published_ones(vector: dict[str, int]) -> None:
    _, nodes = grown([leaf_hash(leaf) for leaf in LEAVES])
    proof = merkle.inclusion_proof(vector["index"], vector["size"], reader(nodes))
    assert proof == proof_of(vector)  # type: ignore[arg-type]  # the vector mixes numbers and lists
    merkle.verify_inclusion(
        index=vector["index"],
        size=vector["size"],
        leaf=leaf_hash(LEAVES[vector["index"]]),
        proof=proof,
        root=ROOTS[vector["size"]],
    )


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda v: f"{v['old']} to {v['new']}")
def test_consistency_proofs_are_the_published_ones(vector: dict[str, int]) -> None:
    _, nodes = grown([leaf_hash(leaf) for leaf in LEAVES])
    old, new = vector["old"], vector["new"]
    proof = merkle.consistency_proof(old, new, reader(nodes))
    assert proof == proof_of(vector)  # type: ignore[arg-type]  # the vector mixes numbers and lists
    merkle.verify_consistency(
        old_size=old, new_size=new, old_root=ROOTS[old], new_root=ROOTS[new], proof=proof
    )


@given(sizes)
def test_growing_gives_the_root_of_the_rfcs_definition(size: int) -> None:
    leaves = many(size)
    frontier, nodes = grown(leaves)
    assert root_of(frontier) == naive_root(leaves)
    assert frontier.peaks == tuple(nodes[at] for at in merkle.frontier_coordinates(size))


@given(st.data(), sizes)
def test_every_entry_is_proven_under_every_later_head(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = many(size + 5)
    _, nodes = grown(leaves)
    wanted = {at: nodes[at] for at in merkle.inclusion_coordinates(index, size)}
    proof = merkle.inclusion_proof(index, size, reader(wanted))
    merkle.verify_inclusion(
        index=index, size=size, leaf=leaves[index], proof=proof, root=naive_root(leaves[:size])
    )


@given(st.data(), sizes)
def test_every_head_is_proven_to_begin_with_every_earlier_one(data: st.DataObject, new: int) -> None:
    old = data.draw(st.integers(0, new))
    leaves = many(new)
    _, nodes = grown(leaves)
    wanted = {at: nodes[at] for at in merkle.consistency_coordinates(old, new)}
    proof = merkle.consistency_proof(old, new, reader(wanted))
    merkle.verify_consistency(
        old_size=old,
        new_size=new,
        old_root=naive_root(leaves[:old]),
        new_root=naive_root(leaves),
        proof=proof,
    )


def test_appending_writes_about_two_nodes_an_entry() -> None:
    _, nodes = grown(many(1024))
    assert len(nodes) == 2 * 1024 - 1


Inclusion = dict[str, object]
INCLUSION_TAMPERINGS: dict[str, Callable[[dict[str, object]], Inclusion]] = {
    "another index": lambda p: {**p, "index": 4},
    "index outside": lambda p: {**p, "index": 8},
    "negative index": lambda p: {**p, "index": -1},
    "another size": lambda p: {**p, "size": 9},
    "size zero": lambda p: {**p, "size": 0},
    "another leaf": lambda p: {**p, "leaf": leaf_hash(b"forged")},
    "another root": lambda p: {**p, "root": ROOTS[7]},
    "no proof": lambda p: {**p, "proof": ()},
    "a step less": lambda p: {**p, "proof": p["proof"][:-1]},  # type: ignore[index]  # a tuple
    "a step more": lambda p: {**p, "proof": (*p["proof"], ROOTS[1])},  # type: ignore[misc]  # a tuple
    "steps swapped": lambda p: {**p, "proof": p["proof"][::-1]},  # type: ignore[index]  # a tuple
    "an inner node passed off as an entry": lambda p: {**p, "leaf": ROOTS[2], "proof": p["proof"][1:]},  # type: ignore[index]
}


@pytest.mark.parametrize("tamper", INCLUSION_TAMPERINGS.values(), ids=INCLUSION_TAMPERINGS.keys())
def test_a_changed_inclusion_proof_is_refused(tamper: Callable[[dict[str, object]], Inclusion]) -> None:
    good = {
        "index": 5,
        "size": 8,
        "leaf": leaf_hash(LEAVES[5]),
        "proof": proof_of(VECTORS["inclusion"][2]),
        "root": ROOTS[8],
    }
    merkle.verify_inclusion(**good)  # type: ignore[arg-type]  # one table for all kinds of value
    with pytest.raises(LedgerTamperedError):
        merkle.verify_inclusion(**tamper(good))  # type: ignore[arg-type]  # as above


CONSISTENCY_TAMPERINGS: dict[str, Callable[[dict[str, object]], Inclusion]] = {
    "another old root": lambda p: {**p, "old_root": ROOTS[5]},
    "another new root": lambda p: {**p, "new_root": ROOTS[7]},
    "another old size": lambda p: {**p, "old_size": 5},
    "another new size": lambda p: {**p, "new_size": 9},
    "sizes swapped": lambda p: {**p, "old_size": 8, "new_size": 6},
    "negative size": lambda p: {**p, "old_size": -1},
    "no proof": lambda p: {**p, "proof": ()},
    "a step less": lambda p: {**p, "proof": p["proof"][:-1]},  # type: ignore[index]  # a tuple
    "a step more": lambda p: {**p, "proof": (*p["proof"], ROOTS[1])},  # type: ignore[misc]  # a tuple
    "empty ledger with another root": lambda p: {**p, "old_size": 0, "proof": ()},
    "same size, other root": lambda p: {**p, "old_size": 8, "proof": ()},
}


@pytest.mark.parametrize("tamper", CONSISTENCY_TAMPERINGS.values(), ids=CONSISTENCY_TAMPERINGS.keys())
def test_a_changed_consistency_proof_is_refused(tamper: Callable[[dict[str, object]], Inclusion]) -> None:
    good = {
        "old_size": 6,
        "new_size": 8,
        "old_root": ROOTS[6],
        "new_root": ROOTS[8],
        "proof": proof_of(VECTORS["consistency"][2]),
    }
    merkle.verify_consistency(**good)  # type: ignore[arg-type]  # one table for all kinds of value
    with pytest.raises(LedgerTamperedError):
        merkle.verify_consistency(**tamper(good))  # type: ignore[arg-type]  # as above


def test_a_frontier_that_does_not_fit_its_size_is_refused() -> None:
    with pytest.raises(LedgerTamperedError, match="2 subtree roots, found 1"):
        Frontier(size=3, peaks=(ROOTS[1],))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_an_entry_outside_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(InvalidRequestError):
        merkle.inclusion_coordinates(index, size)


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 3)])
def test_a_larger_head_is_not_the_beginning_of_a_smaller_one(old: int, new: int) -> None:
    with pytest.raises(InvalidRequestError):
        merkle.consistency_coordinates(old, new)
