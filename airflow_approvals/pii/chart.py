"""A chart of entities per column, before and after masking: SVG that we write ourselves, alone or in a page.

One row for each column and entity type, a bar for what was there, a second one for what is left, the numbers
beside them; all bars have one linear scale. Nothing is told by colour alone: the bars differ in place, height
and pattern as well. It follows the viewer's light or dark setting, and holds no script, font or address of
another host. Column names, entity types and counts only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.pii.masking.datasets import MaskReport
from airflow_approvals.pii.masking.rules import LEAST_SCORE
from airflow_approvals.pii.report import ScanReport
from airflow_approvals.pii.verify_report import VerifyReport

MOST_ROWS = 80  # more are counted in a line of their own
_WIDTH, _NAMES, _TYPES, _BARS, _LONGEST = 960, 24, 214, 396, 400  # pixels: the width, three edges, a bar
_ROW, _HEAD, _FOOT = 30, 92, 34


class Count(NamedTuple):
    """How often one entity type stands in one column; `after` is None where nothing was masked."""

    column: str
    entity_type: str
    before: int
    after: int | None


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a chart shows, in the order of the columns, and what its bars count."""

    rows: tuple[Count, ...]
    before: str  # what the first bar is, in words
    after: str  # and the second; "" where there is none
    note: str = ""


def counts_of_scan(report: ScanReport) -> Counts:
    """Return what a scan found, as far as its score is worth masking."""
    rows = [
        Count(column.column, entity.entity_type, entity.cells, None)
        for column in report.columns
        for entity in sorted(column.strong, key=lambda one: (-one.cells, one.entity_type))
    ]
    note = (
        f"{report.rows:,} rows; a cell that holds two types counts twice; scores below {LEAST_SCORE} left out"
    )
    return Counts(rows=tuple(rows), before="cells in which it was found", after="", note=note)


def counts_of_masking(masking: MaskReport, verified: VerifyReport) -> Counts:
    """Return what was masked, and what a verification found left."""
    left: dict[tuple[str, str], int] = {}
    for leak in verified.leaks:
        key = leak.column, leak.entity_type
        left[key] = left.get(key, 0) + leak.count
    rows = [
        Count(column, entity, count, left.pop((column, entity), 0))
        for column, counts in masking.masked.items()
        for entity, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        if count
    ]
    rows += [Count(column, entity, 0, count) for (column, entity), count in left.items()]
    order = {column: number for number, column in enumerate(masking.masked)}
    rows.sort(key=lambda row: order.get(row.column, len(order)))  # stable
    dropped = f"; dropped: {_few(masking.dropped)}" if masking.dropped else ""
    shown = {row.column for row in rows} | set(masking.dropped)
    alone = [column for column in masking.masked if column not in shown]
    # Not masked is not the same as nothing there: a plan leaves what a person let it leave.
    left_alone = f"; not masked by the plan: {_few(alone)}" if alone else ""
    searched = f"{verified.values_searched:,} values searched in every cell of the output"
    note = f"{masking.rows:,} rows; {searched}{left_alone}{dropped}"
    return Counts(rows=tuple(rows), before="masked", after="left after masking", note=note)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_name(path: Path) -> None:
    """Raise `InvalidRequestError` unless the name tells what to draw."""
    if path.suffix.lower() not in (".svg", ".html"):
        raise InvalidRequestError(f"{path}: a chart is drawn as .html or .svg; expected one of these names")


def write_chart(path: Path, counts: Counts, *, title: str) -> None:
    """Draw a chart into a file, `.svg` or `.html`."""
    check_name(path)
    svg = draw(counts, title=title)
    path.write_text(svg if path.suffix.lower() == ".svg" else _page(svg, counts, title), encoding="utf-8")


def draw(counts: Counts, *, title: str) -> str:
    """Return the chart as an SVG document."""
    shown = counts.rows[:MOST_ROWS]
    hidden = len(counts.rows) - len(shown)
    most = max((max(row.before, row.after or 0) for row in shown), default=0)
    height = _HEAD + _ROW * max(len(shown), 1) + _FOOT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="chart-title chart-note">',
        f'<title id="chart-title">{_text(title)}</title>',
        f'<desc id="chart-note">{_text(_said(counts))}</desc>',
        f"<style>{_STYLE}</style>",
        f"<defs>{_HATCH}</defs>",
        f'<rect class="ground" width="{_WIDTH}" height="{height}" rx="10"/>',
        f'<text class="title" x="{_NAMES}" y="36">{_text(title)}</text>',
        *_legend(counts),
        *_rows(shown, most),
    ]
    foot = counts.note + (f"; {hidden} more rows not shown" if hidden else "")
    lines.append(f'<text class="small" x="{_NAMES}" y="{height - 14}">{_text(foot)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _legend(counts: Counts) -> Iterator[str]:
    yield f'<rect class="before" x="{_NAMES}" y="54" width="22" height="11"/>'
    yield f'<text class="small" x="{_NAMES + 30}" y="64">{_text(counts.before)}</text>'
    if counts.after:
        x = _NAMES + 60 + 7 * len(counts.before)
        yield f'<rect class="after" x="{x}" y="56" width="22" height="7"/>'
        yield f'<text class="small" x="{x + 30}" y="64">{_text(counts.after)}</text>'


def _rows(rows: Sequence[Count], most: int) -> Iterator[str]:
    if not rows:
        yield f'<text class="type" x="{_NAMES}" y="{_HEAD + 16}">none</text>'
    column = None
    for number, row in enumerate(rows):
        y = _HEAD + number * _ROW
        if row.column != column:
            column = row.column
            yield f'<line class="rule" x1="{_NAMES}" x2="{_WIDTH - _NAMES}" y1="{y - 5}" y2="{y - 5}"/>'
            yield f'<text class="column" x="{_NAMES}" y="{y + 14}">{_name(column, 21)}</text>'
        yield f'<text class="type" x="{_TYPES}" y="{y + 14}">{_name(row.entity_type, 19)}</text>'
        before, after = _length(row.before, most), _length(row.after or 0, most)
        yield f'<rect class="before" x="{_BARS}" y="{y + 1}" width="{before:.1f}" height="11"/>'
        if row.after is not None:
            yield f'<rect class="after" x="{_BARS}" y="{y + 13}" width="{after:.1f}" height="7"/>'
        told = f"{row.before:,}" if row.after is None else f"{row.before:,} → {row.after:,}"
        leak = " leak" if row.after else ""
        x = _BARS + max(before, after) + 10
        yield f'<text class="count{leak}" x="{x:.1f}" y="{y + 13}">{told}</text>'


def _length(count: int, most: int) -> float:
    # One pixel at least: there is a difference between few and none.
    return max(1.0, _LONGEST * count / most) if count else 0.0


def _said(counts: Counts) -> str:
    rows = (
        f"{row.column}, {row.entity_type}: {row.before:,}"
        + ("" if row.after is None else f", then {row.after:,}")
        for row in counts.rows
    )
    return "; ".join(rows) or "nothing"


def _page(svg: str, counts: Counts, title: str) -> str:
    heads = ["column", "type", counts.before, *([counts.after] if counts.after else [])]
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{_text(str(cell))}</td>" for cell in row if cell is not None) + "</tr>"
        for row in counts.rows
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(title)}</title>\n<style>{_PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{svg}<details>\n<summary>The same as a table</summary>\n<table>\n<thead><tr>"
        + "".join(f'<th scope="col">{_text(head)}</th>' for head in heads)
        + f"</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</details>\n</main>\n</body>\n</html>\n"
    )


def _name(text: str, longest: int) -> str:
    if len(text) <= longest:
        return _text(text)
    return f"{_text(text[: longest - 1])}…<title>{_text(text)}</title>"


def _text(text: str) -> str:
    """Return text for XML, every sign that cannot be seen spelled out: XML has no control characters."""
    return escape("".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text))


# Blue and orange of Okabe and Ito, told apart with every kind of colour vision; darker or lighter by theme.
_STYLE = """
svg { color-scheme: light dark; --ground: #fff; --ink: #171b22; --muted: #565f6e; --line: #dde1e8;
  --before: #0072b2; --after: #d55e00; --good: #176238; --bad: #a3241c;
  font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --ground: #161a20; --ink: #e8ebf0; --muted: #a3adbb;
  --line: #323945; --before: #56b4e9; --after: #ff9d4d; --good: #6fd39a; --bad: #ff9a8f; } }
.ground { fill: var(--ground); stroke: var(--line); } .rule { stroke: var(--line); }
text { fill: var(--ink); } .title { font-size: 17px; font-weight: 650; } .column { font-weight: 600; }
.type, .small { fill: var(--muted); } .small { font-size: 12px; }
.count { font-variant-numeric: tabular-nums; } .leak { fill: var(--bad); font-weight: 650; }
.before { fill: var(--before); } .after { fill: url(#hatch); stroke: var(--after); }
.hatch { fill: var(--ground); } .stripe { stroke: var(--after); }
"""
_HATCH = (
    '<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch" width="5" height="5"/><line class="stripe" y2="5" stroke-width="5"/></pattern>'
)
_PAGE_STYLE = """
:root { color-scheme: light dark; } body { margin: 0; font: 15px/1.5 system-ui, sans-serif;
  background: light-dark(#f5f6f8, #0f1216); color: light-dark(#171b22, #e8ebf0); }
main { max-width: 960px; margin: 2rem auto; padding: 0 1rem; } svg { width: 100%; height: auto; }
summary { margin-top: 1rem; cursor: pointer; } table { border-collapse: collapse; margin-top: .5rem; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0;
  border-bottom: 1px solid light-dark(#dde1e8, #323945); }
th:nth-child(n+3), td:nth-child(n+3) { text-align: right; font-variant-numeric: tabular-nums; }
"""
