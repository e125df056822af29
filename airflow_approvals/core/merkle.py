"""The Merkle tree of RFC 6962 section 2.1: one root for all entries, short proofs for one of them.

Only complete subtrees are ever stored (`Node`): they never change again, so appending writes about two nodes
per entry however long the ledger is. Everything else is computed from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_approvals.core.errors import InvalidRequestError, LedgerTamperedError

EMPTY_ROOT = hashlib.sha256(b"").digest()
Coordinate = tuple[int, int]
"""(level, index) of a complete subtree: its leaves are index * 2^level up to (index + 1) * 2^level - 1."""
ReadNode = Callable[[int, int], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """The hash of one complete subtree; level 0 is a leaf."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """All that is needed to append: the roots of the complete subtrees of the tree, largest first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or self.size.bit_count() != len(self.peaks):
            raise LedgerTamperedError(
                f"a ledger of {self.size} entries has {self.size.bit_count()} subtree roots, "
                f"found {len(self.peaks)}; the stored tree is damaged, export and verify the ledger"
            )


def leaf_hash(body: bytes) -> bytes:
    """Return the 32-byte hash of one entry."""
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the 32-byte hash of two subtrees side by side."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def grow(frontier: Frontier, leaf: bytes) -> tuple[Frontier, tuple[Node, ...]]:
    """Return the frontier with the hash `leaf` appended, and the nodes that are complete from now on."""
    index = frontier.size
    peaks = list(frontier.peaks)
    nodes = [Node(level=0, index=index, hash=leaf)]
    while index & 1:
        left, index = peaks.pop(), index >> 1
        nodes.append(Node(level=len(nodes), index=index, hash=node_hash(left, nodes[-1].hash)))
    return Frontier(size=frontier.size + 1, peaks=(*peaks, nodes[-1].hash)), tuple(nodes)


def root_of(frontier: Frontier) -> bytes:
    """Return the tree's root hash."""
    return _fold(frontier.peaks) if frontier.peaks else EMPTY_ROOT


def frontier_coordinates(size: int) -> tuple[Coordinate, ...]:
    """Return where the peaks of a tree of `size` entries are kept, largest first."""
    return _subtrees(0, size)


def inclusion_coordinates(index: int, size: int) -> tuple[Coordinate, ...]:
    """Return every node that `inclusion_proof` will read, so that a store can fetch them in one query."""
    return _flat(_inclusion_ranges(index, size))


def consistency_coordinates(old_size: int, new_size: int) -> tuple[Coordinate, ...]:
    """Return every node that `consistency_proof` will read."""
    return _flat(_consistency_ranges(old_size, new_size))


def inclusion_proof(index: int, size: int, read_node: ReadNode) -> tuple[bytes, ...]:
    """Return the audit path (RFC 6962 2.1.1) of entry `index` in the tree of the first `size` entries."""
    return tuple(_range_hash(start, end, read_node) for start, end in _inclusion_ranges(index, size))


def consistency_proof(old_size: int, new_size: int, read_node: ReadNode) -> tuple[bytes, ...]:
    """Return the proof (RFC 6962 2.1.2) that the tree of `new_size` begins with the one of `old_size`."""
    return tuple(_range_hash(start, end, read_node) for start, end in _consistency_ranges(old_size, new_size))


def verify_inclusion(*, index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Raise `LedgerTamperedError` unless `leaf` is entry `index` of the tree (RFC 9162 2.1.3.2)."""
    node, last = index, size - 1
    found = leaf
    fits = 0 <= index < size
    for step in proof:
        if not fits or last == 0:
            fits = False
            break
        if node & 1 or node == last:
            found = node_hash(step, found)
            node, last = _climb_to_right_child(node, last)
        else:
            found = node_hash(found, step)
        node, last = node >> 1, last >> 1
    if not fits or last != 0 or found != root:
        raise LedgerTamperedError(
            f"entry {index} is not proven to be in the ledger of {size} entries that was signed; "
            "do not rely on it, ask for a ledger export and verify that",
            index=index,
        )


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise `LedgerTamperedError` unless the new tree begins with the whole old one (RFC 9162 2.1.4.2)."""
    if not _is_consistent(old_size, new_size, old_root, new_root, tuple(proof)):
        raise LedgerTamperedError(
            f"the ledger of {new_size} entries is not proven to begin with the {old_size} signed before; "
            "history may have been rewritten, keep both checkpoints and ask for a ledger export"
        )


def _is_consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: tuple[bytes, ...]) -> bool:
    if old < 0 or old > new:
        return False
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if old == new:
        return not proof and old_root == new_root
    path = (old_root, *proof) if old.bit_count() == 1 else proof
    if not path:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    found_old = found_new = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            found_old, found_new = node_hash(step, found_old), node_hash(step, found_new)
            node, last = _climb_to_right_child(node, last)
        else:
            found_new = node_hash(found_new, step)
        node, last = node >> 1, last >> 1
    return last == 0 and found_old == old_root and found_new == new_root


def _climb_to_right_child(node: int, last: int) -> Coordinate:
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    if not 0 <= index < size:
        raise InvalidRequestError(
            f"entry {index} is not among the first {size} entries; ask for a larger tree"
        )
    ranges, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def _consistency_ranges(old_size: int, new_size: int) -> list[tuple[int, int]]:
    if not 0 <= old_size <= new_size:
        raise InvalidRequestError(
            f"a ledger of {old_size} entries cannot be the beginning of one of {new_size}; swap the sizes"
        )
    if old_size in (0, new_size):
        return []
    ranges, start, end = [], 0, new_size
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start:
        ranges.append((start, end))
    return ranges[::-1]


def _split(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtrees(start: int, end: int) -> tuple[Coordinate, ...]:
    found = []
    for level in range((end - start).bit_length() - 1, -1, -1):
        if (end - start) >> level & 1:
            found.append((level, start >> level))
            start += 1 << level
    return tuple(found)


def _flat(ranges: list[tuple[int, int]]) -> tuple[Coordinate, ...]:
    return tuple(coordinate for start, end in ranges for coordinate in _subtrees(start, end))


def _range_hash(start: int, end: int, read_node: ReadNode) -> bytes:
    count = end - start
    if not count & (count - 1):  # one whole subtree, as nearly all of a proof's are
        return read_node(count.bit_length() - 1, start // count)
    return _fold([read_node(level, index) for level, index in _subtrees(start, end)])


def _fold(peaks: Sequence[bytes]) -> bytes:
    found = peaks[-1]
    for left in peaks[-2::-1]:
        found = node_hash(left, found)
    return found
