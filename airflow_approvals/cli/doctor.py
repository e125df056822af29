"""`doctor`: looks at this installation from where it runs, and says what is wrong and what to do."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.output import print_json, stdout, visible
from airflow_approvals.cli.session import server_url
from airflow_approvals.core.errors import ApprovalsError, NotAuthenticatedError, PolicyError

if TYPE_CHECKING:
    import httpx

    from airflow_approvals.core.policy import PolicyFile
    from airflow_approvals.settings import Settings

MAX_SKEW = timedelta(seconds=60)
"""Beyond this the server refuses workers' tokens."""
DEFAULT_SECRETS = frozenset({"", "temporary_key", "airflow"})

Level = Literal["ok", "note", "wrong"]
_STYLES: dict[Level, str] = {"ok": "green", "note": "yellow", "wrong": "red"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: Level
    text: str


def examine(args: Namespace) -> int:
    """Look at everything, tell it in order, and end with 1 if something is wrong."""
    settings = _find_settings()
    if settings is not None:
        args.configured_url = settings.service_url
    findings = [*_local_findings(settings), *_server_findings(server_url(args))]
    wrong = any(finding.level == "wrong" for finding in findings)
    if args.output == "json":
        checks = [{"subject": one.subject, "level": one.level, "text": one.text} for one in findings]
        print_json({"ok": not wrong, "checks": checks})
    else:
        for finding in findings:
            line = Text(f"{finding.level:<6}", style=_STYLES[finding.level])
            line.append(f"{finding.subject:<14}", style="bold").append(visible(finding.text), style="default")
            stdout().print(line, soft_wrap=True)
    return Exit.ERROR if wrong else Exit.OK


def _find_settings() -> Settings | None:
    """Return the configuration of the Airflow that is installed here, if one is."""
    try:
        from airflow_approvals.settings import read_settings

        return read_settings()
    except ImportError:
        return None


def _local_findings(settings: Settings | None) -> Iterator[Finding]:
    if settings is None:
        yield Finding(subject="airflow", level="note", text="not installed here: looking at the server only")
        return
    from airflow import __version__ as airflow_version

    yield Finding(subject="airflow", level="ok", text=f"{airflow_version}, home {settings.home}")
    (database,) = _checked("database", _check_database)
    yield database
    if database.level == "ok":  # without our tables they could only say so again
        yield from _checked("deliveries", _check_deliveries)
        yield from _checked("lineage", _check_lineage)
    yield from _policy_findings(Path(settings.policy_file))
    yield from _checked("signing key", lambda: _check_key(settings))
    yield _secret_finding(settings)
    yield from _witness_findings(settings)
    yield from _enforcement_findings(settings)


def _checked(subject: str, check: Callable[[], str]) -> Iterator[Finding]:
    try:
        yield Finding(subject=subject, level="ok", text=check())
    except ApprovalsError as error:
        yield Finding(subject=subject, level="wrong", text=str(error))


def _check_database() -> str:
    from airflow_approvals.wiring import check_database

    check_database()
    return "tables at the newest version, the ledger's guards in place"


def _check_deliveries() -> str:
    from airflow_approvals.wiring import check_deliveries

    check_deliveries()
    return "no message was given up"


def _check_lineage() -> str:
    from airflow_approvals.wiring import check_lineage

    return check_lineage()


def _witness_findings(settings: Settings) -> Iterator[Finding]:
    if not settings.witness:
        text = "none: whoever has the database and the signing key could rewrite the ledger unseen"
        yield Finding(subject="witness", level="note", text=text)
        return
    from airflow_approvals.wiring import check_witness

    yield from _checked("witness", lambda: check_witness(settings))


def _check_key(settings: Settings) -> str:
    from airflow_approvals.wiring import check_signing_key

    return f"key {check_signing_key(settings)} can be used, and is closed to others"


def _policy_findings(path: Path) -> Iterator[Finding]:
    from airflow_approvals.core.policy import parse_policy_file

    try:
        policy_file = parse_policy_file(path.read_text(encoding="utf-8"), name=str(path))
    except (OSError, UnicodeDecodeError) as error:
        text = (
            f"{path}: cannot be read ({type(error).__name__}); nothing can be approved without it: write one "
            "there, or name another in [approvals] policy_file"
        )
        yield Finding(subject="policy file", level="wrong", text=text)
        return
    except ApprovalsError as error:
        yield Finding(subject="policy file", level="wrong", text=str(error))
        return
    count = len(policy_file.policies)
    policies = "1 policy" if count == 1 else f"{count} policies"
    yield Finding(
        subject="policy file",
        level="ok",
        text=f"{path}: {policies}, digest {policy_file.digest[:16]}",
    )
    for notice in policy_file.notices():
        yield Finding(subject="policy file", level="note", text=notice)
    yield from _channel_findings(policy_file, path)


def _channel_findings(policy_file: PolicyFile, path: Path) -> Iterator[Finding]:
    from airflow_approvals.channels.checking import channel_problems

    problems = channel_problems(policy_file, path.read_text(encoding="utf-8"), name=str(path))
    for problem in problems:
        yield Finding(subject="channels", level="wrong", text=problem)
    if policy_file.channels and not problems:
        text = f"{', '.join(policy_file.channels)}: their connections and notifiers can be used from here"
        yield Finding(subject="channels", level="ok", text=text)


def _enforcement_findings(settings: Settings) -> Iterator[Finding]:
    from airflow_approvals.core.policy import parse_policy_file
    from airflow_approvals.enforcement.examination import examine_enforcement

    path = Path(settings.policy_file)
    try:
        policy_file = parse_policy_file(path.read_text(encoding="utf-8"), name=str(path))
        for found in examine_enforcement(settings, policy_file, now=datetime.now(UTC)):
            yield Finding(subject=found.subject, level=found.level, text=found.text)
    except (OSError, UnicodeDecodeError, PolicyError):
        return  # told of the policy file already
    except ApprovalsError as error:
        yield Finding(subject="enforcement", level="wrong", text=str(error))


def _secret_finding(settings: Settings) -> Finding:
    if settings.worker_secret in DEFAULT_SECRETS:
        text = "empty or a known default: anybody can make workers' tokens; set [approvals] worker_secret"
        return Finding(subject="worker secret", level="wrong", text=text)
    return Finding(subject="worker secret", level="ok", text="set")


def _server_findings(url: str) -> Iterator[Finding]:
    import httpx

    from airflow_approvals.client.calls import API, error_of, unreachable

    before = datetime.now(UTC)
    try:
        answer = httpx.get(f"{url}{API}/health", timeout=10)
    except httpx.TransportError as error:
        yield Finding(subject="server", level="wrong", text=str(unreachable(url, error)))
        return
    refusal = error_of(answer)
    # Without a login the service must refuse, in its own words: that shows that it is there and guarded.
    media_type = answer.headers.get("content-type", "")
    if isinstance(refusal, NotAuthenticatedError) and media_type.startswith("application/problem+json"):
        yield Finding(subject="server", level="ok", text=f"{url}: the approvals plugin answers")
    else:
        yield Finding(subject="server", level="wrong", text=f"{url}: {refusal}")
    yield from _skew_findings(answer, before)
    yield _guard_finding(url)


def _guard_finding(url: str) -> Finding:
    """Tell whether the guard stands in front of the execution API that workers ask, wherever it is served."""
    import httpx

    from airflow_approvals.core.guard_probe import GUARD_HEADER, PROBE

    api = _execution_api_url() or f"{url}/execution"
    try:
        # Airflow 3.3.2 builds this API at its first call, for up to half a minute on a busy machine.
        answer = httpx.get(f"{api.rstrip('/')}{PROBE}", timeout=60)
    except httpx.TransportError as error:
        text = (
            f"{api}: cannot be asked ({type(error).__name__}), so nobody knows whether sealed secrets are "
            "guarded there; once the API server is up and idle, run doctor again"
        )
        return Finding(subject="guard", level="wrong", text=text)
    if GUARD_HEADER in answer.headers:
        text = f"{api}: sealed secrets are opened for approved tasks"
        return Finding(subject="guard", level="ok", text=text)
    text = (
        f"{api}: served without the approvals plugin (by an `--apps execution` server?): nothing that is "
        "sealed opens there, and nothing that is only protected is guarded; serve it with --apps all"
    )
    return Finding(subject="guard", level="wrong", text=text)


def _execution_api_url() -> str | None:
    try:
        from airflow.configuration import conf
    except ImportError:
        return None
    return str(conf.get("core", "execution_api_server_url", fallback="")) or None


def _skew_findings(answer: httpx.Response, before: datetime) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return
    # The header has whole seconds, and the answer took its time.
    skew = abs(theirs - (before + answer.elapsed / 2))
    wrong = skew > MAX_SKEW
    text = f"{skew.total_seconds():.0f} s apart from the server" + (
        "; tokens are refused beyond 60 s: let both follow a time server" if wrong else ""
    )
    yield Finding(subject="clock", level="wrong" if wrong else "ok", text=text)
