"""What the PII reports of a request come to, in a few words: counts and entity types, before and after.

Reports come from workers and may hold anything: what has not the promised shape is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_approvals.channels.text import counted, cut

_COLUMNS = 2000
_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class Findings:
    """One scan: cells with findings per entity type, most first, and per column."""

    entities: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, int], ...]

    @property
    def words(self) -> str:
        """What was found, like `1,234 cells in 3 columns (EMAIL_ADDRESS 1,000, PERSON 234)`."""
        if not self.columns:
            return "nothing found"
        cells = sum(count for _, count in self.columns)
        named = [f"{entity} {count:,}" for entity, count in self.entities[:_NAMED]]
        if len(self.entities) > _NAMED:
            named.append(f"{len(self.entities) - _NAMED} more types")
        kinds = f" ({', '.join(named)})" if named else ""
        return f"{counted(cells, 'cell')} in {counted(len(self.columns), 'column')}{kinds}"


def pii_facts(pii: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return label and words for everything the reports say; a request without a scan says so."""
    if not isinstance(pii, Mapping):
        return [("PII", "not scanned")]
    before = findings_of(pii.get("before")) or findings_of(pii)
    after = findings_of(pii.get("after"))
    facts = []
    if before is not None:
        facts.append(("PII found", before.words))
    if after is not None:
        facts.append(("PII after masking", after.words))
    residual = _whole(pii.get("residual"))
    if "verified" in pii:
        left = "" if residual is None else f", {residual:,} left over"
        verdict = ("yes" if pii["verified"] is True else "NO") + left
        facts.append(("Masking verified", verdict + _left_alone(after)))
    return facts or [("PII", "a report without counts")]


def _left_alone(after: Findings | None) -> str:
    """Return which columns the plan leaves as they are, where findings stay in some."""
    if after is None or not after.columns:
        return ""
    named = [cut(column, 60) for column, _ in after.columns[:_NAMED]]
    if len(after.columns) > _NAMED:
        named.append(f"{len(after.columns) - _NAMED} more")
    return f"; found and not masked in {', '.join(named)}"


def findings_of(report: object) -> Findings | None:
    """Return what one scan found; None when there is no report that can be read."""
    if not isinstance(report, Mapping) or not isinstance(report.get("columns"), list):
        return None
    entities: dict[str, int] = {}
    columns: dict[str, int] = {}
    for column in report["columns"][:_COLUMNS]:
        if not isinstance(column, Mapping) or not isinstance(column.get("column"), str):
            continue
        found = [_entity(entity) for entity in _listed(column.get("entities"))]
        cells = _whole(column.get("cells_with_findings"))
        cells = max((count for _, count in found), default=0) if cells is None else cells
        if cells:
            columns[column["column"]] = cells
        for name, count in found:
            entities[name] = entities.get(name, 0) + count
    return Findings(entities=_most_first(entities), columns=_most_first(columns))


def _entity(entity: Mapping[str, Any]) -> tuple[str, int]:
    return str(entity.get("entity_type", "?")), _whole(entity.get("cells")) or 0


def _listed(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _most_first(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
