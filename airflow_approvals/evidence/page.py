"""The report for people: one HTML page that holds all it needs, and prints."""

from __future__ import annotations

import re
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from airflow_approvals.core.export import LedgerReport
from airflow_approvals.core.signature import PublicKeys
from airflow_approvals.evidence.article import article
from airflow_approvals.evidence.cases import Case
from airflow_approvals.evidence.checks import Checked
from airflow_approvals.evidence.controls import Control, holds, mapping
from airflow_approvals.evidence.ledger_file import LedgerFile
from airflow_approvals.evidence.summary import SECTIONS, Summary
from airflow_approvals.evidence.words import demands, moment, visible, when

_TEMPLATES = Path(__file__).parent / "templates"
_CODE = re.compile("`([^`]+)`")


class Page:
    """Writes the actions as they come, and the page around them once everything is counted."""

    def __init__(self) -> None:
        environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_visible,
            keep_trailing_newline=True,
        )
        environment.filters["when"] = when
        environment.filters["in_code"] = _in_code
        self._environment = environment
        self._actions = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._actions.close()

    def write(self, case: Case) -> None:
        """Add one action."""
        self._actions.write(article(case))

    def finish(
        self,
        path: Path,
        *,
        summary: Summary,
        ledger: LedgerFile,
        report: LedgerReport,
        checks: tuple[Checked, ...],
        keys: PublicKeys,
        made_at: datetime,
        version: str,
    ) -> None:
        """Write the whole page to `path`."""
        head = {
            "style": Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8").strip()),  # noqa: S704  # our own file
            "origin": report.origin,
            "since": moment(ledger.period.since),
            "until": moment(ledger.period.until),
            "made_at": moment(made_at),
            "is_over": ledger.period.until <= made_at,
            "signed_at": moment(report.head.time) if report.head.time else "at a time that it does not tell",
            "version": version,
            "report": report,
            "figures": _figures(summary),
            "in_words": _in_words(summary),
            "receipts": summary.receipts,
            "checks": [(each, *_answer(held=each.holds, of=each.of)) for each in checks],
            "frameworks": _frameworks(checks),
            "policies": [
                (name, digest[:12], count, " ".join(demands(summary.rules[digest])))
                if digest in summary.rules
                else (name, digest[:12], count, "Its rules are not on record.")
                for (name, digest), count in sorted(summary.applied.items())
            ],
            "lists": [
                {"name": name, "title": title, "about": about, "found": summary.notable[name]}
                for name, (title, about) in SECTIONS.items()
            ],
            "counts": sorted(ledger.counts.items()),
            "total": ledger.counts.total(),
            "cases": summary.cases,
        }
        self._actions.seek(0)
        with path.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(self._environment.get_template("head.html").generate(head))
            shutil.copyfileobj(self._actions, stream)
            tail = {"cases": summary.cases, "keys": list(keys.values()), "head": report.head.note}
            stream.writelines(self._environment.get_template("tail.html").generate(tail))


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _in_code(text: str) -> Markup:
    """Return our own words with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped just now


def _figures(summary: Summary) -> list[tuple[str, str]]:
    numbers = (
        (summary.cases, "actions asked for or moved on"),
        (summary.approvals, "approvals"),
        (summary.denied, "denied"),
        (summary.published, "published"),
        (summary.rows_published, "rows published as approved"),
        (summary.grants["break_glass"], "break-glass uses"),
        (summary.standing_grants, "granted by a standing approval"),
        (summary.refusals, "attempts refused"),
    )
    return [(f"{number:,}", label) for number, label in numbers]


def _in_words(summary: Summary) -> str:
    channels = ", ".join(f"{count:,} from {name}" for name, count in sorted(summary.channels.items()))
    policies = ", ".join(f"{count:,} under {name}" for name, count in sorted(summary.policies.items()))
    told = f"Answers: {channels or 'none'}. Actions by policy: {policies or 'none'}."
    if summary.published:
        told += f" Of {summary.published:,} published, {summary.pii_published:,} had a PII report."
    if summary.pii_measured:
        told += (
            f" In {summary.pii_measured:,} it counts what was found in the published data: "
            f"{summary.pii_before:,} cells before masking and {summary.pii_after:,} after it, a cell with "
            "two kinds counted twice."
        )
    return told


def _answer(*, held: bool, of: int) -> tuple[str, str]:
    """Return the word for a check or a control, and how it looks; nothing to look at is no yes."""
    if not held:
        return "NO", "bad"
    return ("yes", "good") if of else ("nothing", "")


def _rests_on(control: Control, checks: tuple[Checked, ...]) -> str:
    """Return the checks of a control by their numbers, and which of them do not hold."""
    mine = [(number, each) for number, each in enumerate(checks, 1) if each.name in control.checks]
    told = f"checks {', '.join(str(number) for number, _ in mine)}"
    failed = ", ".join(str(number) for number, each in mine if not each.holds)
    return f"{told}; not {failed}" if failed else told


def _frameworks(checks: tuple[Checked, ...]) -> list[dict[str, Any]]:
    found = mapping()
    looked_at = {each.name: each.of for each in checks}
    return [
        {
            "title": framework.title,
            "controls": [
                (
                    control,
                    *_answer(held=holds(control, checks), of=sum(looked_at[each] for each in control.checks)),
                    _rests_on(control, checks),
                )
                for control in found.controls
                if control.framework == name
            ],
        }
        for name, framework in found.frameworks.items()
    ]
