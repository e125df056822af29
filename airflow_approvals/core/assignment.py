"""Who can stand for what when everybody stands for one thing at most: maximum bipartite matching."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

Worker = TypeVar("Worker", bound=str)


def assign(places: Sequence[Collection[Worker]]) -> list[Worker | None]:
    """Return who fills each place, or None where it stays empty; as many places as possible are filled.

    Each place names those who may fill it. Nobody fills two. Earlier places are filled first, and the answer
    depends on content only, never on the order of a set (Kuhn's augmenting paths).
    """
    candidates = [sorted(place) for place in places]
    place_of: dict[Worker, int] = {}
    for place in range(len(candidates)):
        _fill(place, candidates, place_of, set())
    filled: list[Worker | None] = [None] * len(candidates)
    for worker, place in place_of.items():
        filled[place] = worker
    return filled


def _fill(place: int, candidates: list[list[Worker]], place_of: dict[Worker, int], seen: set[Worker]) -> bool:
    for worker in candidates[place]:
        if worker in seen:
            continue
        seen.add(worker)
        held = place_of.get(worker)
        if held is None or _fill(held, candidates, place_of, seen):
            place_of[worker] = place
            return True
    return False
