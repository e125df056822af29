"""The PII reports of a request in a few numbers: cells with findings before masking, and after.

Reports come from workers and may hold anything: what has not the promised shape counts as not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Pii:
    """What scans and verification said; None where they did not."""

    before: tuple[tuple[str, int], ...] | None  # cells by entity type, most first
    after: tuple[tuple[str, int], ...] | None
    verified: bool | None  # None: nothing was held against a source
    residual: int | None
    left: tuple[str, ...] = ()  # columns with findings that the plan leaves alone


def pii_of(report: object) -> Pii | None:
    """Return the numbers of `Evidence.pii`; None when nothing was scanned."""
    if not isinstance(report, Mapping):
        return None
    flat = _cells(report)
    before = _cells(report.get("before")) if flat is None else flat
    after = _cells(report.get("after"))
    is_checked = report.get("scanned") is True and isinstance(report.get("verified"), bool)
    if is_checked and after is None:
        after = _counts(report.get("entities"))
    if before is None and after is None and not is_checked:
        return None
    left = report.get("left_by_plan")
    return Pii(
        before=before,
        after=after,
        verified=report["verified"] if is_checked else None,
        residual=_whole(report.get("residual")),
        left=tuple(each for each in left if isinstance(each, str)) if isinstance(left, list) else (),
    )


def total(counts: tuple[tuple[str, int], ...] | None) -> int | None:
    """Return all cells together; a cell that holds two types counts for both."""
    return None if counts is None else sum(count for _, count in counts)


def _cells(report: object) -> tuple[tuple[str, int], ...] | None:
    columns = report.get("columns") if isinstance(report, Mapping) else None
    if not isinstance(columns, list) or not any(isinstance(column, Mapping) for column in columns):
        return None  # no columns, or a list of names, which measures nothing
    found: dict[str, int] = {}
    for column in columns:
        entities = column.get("entities") if isinstance(column, Mapping) else None
        for entity in entities if isinstance(entities, list) else ():
            match entity:
                case {"entity_type": str(name), "cells": int(cells)} if cells > 0:
                    found[name] = found.get(name, 0) + cells
    return _sorted(found)


def _counts(entities: object) -> tuple[tuple[str, int], ...] | None:
    if not isinstance(entities, Mapping):
        return None
    return _sorted({str(name): _whole(cells) or 0 for name, cells in entities.items() if _whole(cells)})


def _sorted(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
