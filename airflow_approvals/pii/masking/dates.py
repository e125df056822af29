"""Dates moved and made coarser: ISO 8601 and the commonest written forms; all else becomes a placeholder."""

from __future__ import annotations

import hmac
import re
from datetime import date, datetime, timedelta

from airflow_approvals.pii.masking.forms import joining_form

_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y",
    "%B %d, %Y", "%d %B %Y", "%b %d, %Y", "%d %b %Y",
)  # fmt: skip
_CLOCK = re.compile(r"(?P<day>.*?\d)(?P<clock>[T ]\d{1,2}:\d{2}.*)?", re.DOTALL)


def days_of(subject: str, key: bytes, most_days: int) -> int:
    """Return the days that this subject's dates are moved by: from -most_days to most_days, never 0."""
    form = joining_form(subject).encode("utf-8", "surrogatepass")
    number = int.from_bytes(hmac.digest(key, form, "sha256")[:8], "big") % (2 * most_days)
    return number - most_days if number < most_days else number - most_days + 1


def shift(text: str, days: int, otherwise: str) -> str:
    """Return the date moved, in the form it was written in, its time of day kept; `otherwise` for no date."""
    found = _parse(text)
    if found is None:
        return otherwise
    day, form, clock = found
    try:
        return _written(day + timedelta(days=days), form) + clock
    except OverflowError:
        return otherwise


def shift_day(day: date, days: int) -> date:
    """Return a date or datetime moved; one that would leave the calendar is moved the other way."""
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return day - timedelta(days=days)


def generalise(text: str, otherwise: str, *, to_month: bool) -> str:
    """Return year, or year and month, of a date; `otherwise` for no date."""
    found = _parse(text)
    if found is None:
        return otherwise
    return f"{found[0].year:04d}-{found[0].month:02d}" if to_month else f"{found[0].year:04d}"


def generalise_day(day: date, *, to_month: bool) -> date:
    """Return the first day of the year or month, at midnight if it has a time."""
    first = day.replace(day=1) if to_month else day.replace(month=1, day=1)
    if isinstance(first, datetime):
        return first.replace(hour=0, minute=0, second=0, microsecond=0)
    return first


def age_band(text: str, otherwise: str) -> str:
    """Return ten years around an age, `90+` from there on (few people are older); `otherwise` for no age."""
    found = re.fullmatch(r"\s*(\d{1,3})(?:\.0)?\s*", text)
    if found is None:
        return otherwise
    decade = int(found[1]) // 10 * 10
    return "90+" if decade >= 90 else f"{decade}-{decade + 9}"


def _parse(text: str) -> tuple[date, str, str] | None:
    """Return the day, the form that it was written in, and the time of day behind it as it was written."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    for form in _FORMATS:
        try:
            day = datetime.strptime(match["day"], form).date()  # noqa: DTZ007  # a calendar day has no zone
        except ValueError:
            continue
        return day, form, match["clock"] or ""
    return None


def _written(day: date, form: str) -> str:
    # strftime leaves out the leading zeros of years before 1000.
    return day.strftime(form.replace("%Y", f"{day.year:04d}"))
