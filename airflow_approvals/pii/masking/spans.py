"""Spans that overlap become regions that do not, and each region is replaced once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.pii.findings import Span

Place = tuple[int, int]
"""From and up to where in a text."""


def settle(spans: Iterable[Span], text: str) -> list[Span]:
    """Return regions in order that cover every character of every span, none of them twice.

    Where spans overlap the region is all that any of them covers, and has the type of the longest, then the
    surest, then the first. Neighbours of one type with only white space between them become one.
    """
    regions: list[Span] = []
    winners: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end, -span.score, span.entity_type)):
        if not 0 <= span.start < span.end <= len(text):
            raise InvalidRequestError(f"a span from {span.start} to {span.end} is not within its text")
        if regions and span.start < regions[-1].end:
            winners[-1] = max(winners[-1], span, key=lambda one: (one.end - one.start, one.score, -one.start))
            regions[-1] = Span(
                winners[-1].entity_type,
                regions[-1].start,
                max(regions[-1].end, span.end),
                winners[-1].score,
            )
        else:
            regions.append(span)
            winners.append(span)
    return _joined(regions, text)


def replace_regions(
    text: str,
    regions: Iterable[Span],
    replacement: Callable[[str, Span], str],
    written: Iterable[Place] = (),
) -> tuple[str, list[Place]]:
    """Return the text with each region, of those that `settle` gave, replaced, and where this was done.

    `written` says where it was done before; none of the regions lies there.
    """
    pieces: list[str] = []
    places: list[Place] = []
    end = moved = 0
    for region in sorted(
        [*regions, *(Span("", *place, 0.0) for place in written)], key=lambda one: one.start
    ):
        old = text[region.start : region.end]
        new = replacement(old, region) if region.entity_type else old
        pieces += (text[end : region.start], new)
        if new:
            places.append((region.start + moved, region.start + moved + len(new)))
        moved += len(new) - len(old)
        end = region.end
    pieces.append(text[end:])
    return "".join(pieces), places


def _joined(regions: list[Span], text: str) -> list[Span]:
    joined: list[Span] = []
    for region in regions:
        last = joined[-1] if joined else None
        between = text[last.end : region.start] if last else ""
        if last and last.entity_type == region.entity_type and (not between or between.isspace()):
            joined[-1] = Span(last.entity_type, last.start, region.end, max(last.score, region.score))
        else:
            joined.append(region)
    return joined
