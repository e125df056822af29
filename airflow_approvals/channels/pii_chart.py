"""The PII reports of a request as one table: each column before masking and after.

`before` and `after` are scan reports; beside them stand the words of the verification (`scanned`, `verified`,
`residual`, `leaks`, `broken`). A scan report alone is what was found in data that leaves as it is.

Reports come from workers and may hold anything: what has not the promised shape is left out, never shown
wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_COLUMNS = 2000


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What one scan found in one column."""

    cells: int
    scanned: int
    entities: tuple[tuple[str, int], ...]  # entity type, cells; most first

    @property
    def share(self) -> float:
        return min(1.0, self.cells / self.scanned) if self.scanned else 0.0

    @property
    def percent(self) -> str:
        if self.cells and self.share < 0.001:
            return "< 0.1 %"
        return f"{self.share:.1%}".replace("%", " %")


@dataclass(frozen=True, kw_only=True)
class PiiColumn:
    """One column in both scans; None where a scan does not know it."""

    name: str
    before: Measure | None
    after: Measure | None


@dataclass(frozen=True, kw_only=True)
class LeakLine:
    """What the verification found left in one column."""

    column: str
    entity_type: str
    count: int


@dataclass(frozen=True, kw_only=True)
class PiiChart:
    """What the scans and the verification say together."""

    columns: tuple[PiiColumn, ...]  # those with findings
    clean: int  # columns without any
    has_before: bool
    has_after: bool
    is_checked: bool  # there is a verification, whatever came of it
    verified: bool
    residual: int | None
    leaks: tuple[LeakLine, ...]
    broken: tuple[str, ...]  # promises of the masking that do not hold

    @property
    def left_by_plan(self) -> tuple[str, ...]:
        """Columns of a verified masking in which findings stay: its plan lets them."""
        proven = self.verified and self.residual == 0
        return tuple(each.name for each in self.columns if proven and each.after and each.after.cells)

    @property
    def entities(self) -> tuple[str, ...]:
        """Entity types that were found anywhere, sorted."""
        return tuple(
            sorted(
                {
                    entity
                    for column in self.columns
                    for measure in (column.before, column.after)
                    if measure is not None
                    for entity, _ in measure.entities
                }
            )
        )


def chart_of(pii: Mapping[str, Any] | None) -> PiiChart | None:
    """Return the chart, or None when nothing was scanned."""
    if not isinstance(pii, Mapping):
        return None
    flat = _measures(pii)
    before = _measures(pii.get("before")) if flat is None else flat
    after = _measures(pii.get("after"))
    # As policies see it: a verification without a scan to hold against is none.
    is_checked = pii.get("scanned") is True and isinstance(pii.get("verified"), bool)
    if before is None and after is None and not is_checked:
        return None
    names = list(dict.fromkeys([*(before or {}), *(after or {})]))
    columns = tuple(
        PiiColumn(name=name, before=(before or {}).get(name), after=(after or {}).get(name)) for name in names
    )
    found = tuple(
        column for column in columns if any(each and each.cells for each in (column.before, column.after))
    )
    return PiiChart(
        columns=found,
        clean=len(columns) - len(found),
        has_before=before is not None,
        has_after=after is not None,
        is_checked=is_checked,
        verified=is_checked and pii["verified"],
        # What a scan found in data that nobody masked is not left over.
        residual=_whole(pii.get("residual")) if is_checked else None,
        leaks=tuple(_leaks(pii.get("leaks"))),
        broken=tuple(each for each in _list(pii.get("broken")) if isinstance(each, str)),
    )


def entity_counts(pii: Mapping[str, Any] | None) -> dict[str, int] | None:
    """Return the cells per entity type in what would leave: after masking if scanned, else before."""
    chart = chart_of(pii)
    if chart is None or not (chart.has_before or chart.has_after):
        return None
    counts: dict[str, int] = {}
    for column in chart.columns:
        measure = column.after if chart.has_after else column.before
        for entity, cells in measure.entities if measure else ():
            counts[entity] = counts.get(entity, 0) + cells
    return counts


def _measures(report: object) -> dict[str, Measure] | None:
    if not isinstance(report, Mapping) or not isinstance(report.get("columns"), list):
        return None
    columns = [column for column in report["columns"][:MAX_COLUMNS] if isinstance(column, Mapping)]
    if not columns:
        return None  # a list of names, which measures nothing
    return {column["column"]: _measure(column) for column in columns if isinstance(column.get("column"), str)}


def _measure(column: Mapping[str, Any]) -> Measure:
    entities = [
        (entity["entity_type"], _whole(entity.get("cells")) or 0)
        for entity in _list(column.get("entities"))
        if isinstance(entity, Mapping) and isinstance(entity.get("entity_type"), str)
    ]
    cells = _whole(column.get("cells_with_findings"))
    return Measure(
        cells=max((count for _, count in entities), default=0) if cells is None else cells,
        scanned=_whole(column.get("scanned")) or 0,
        entities=tuple(sorted(entities, key=lambda each: (-each[1], each[0]))),
    )


def _leaks(found: object) -> Iterator[LeakLine]:
    for leak in _list(found)[:MAX_COLUMNS]:
        match leak:
            case {"column": str(column), "entity_type": str(entity_type), "count": int(count)}:
                yield LeakLine(column=column, entity_type=entity_type, count=count)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
