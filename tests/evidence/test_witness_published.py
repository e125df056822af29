"""The API server publishes the ledger's heads by itself, and says loudly when the ledger does not go on."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.slack.heads import post_head
from airflow_approvals.core.checkpoint import verify_checkpoint
from airflow_approvals.core.errors import LedgerTamperedError, VerificationError
from airflow_approvals.core.heads import head_of, heads_in
from airflow_approvals.core.signature import by_keyid
from airflow_approvals.lineage.approval import Site as LineageSite
from airflow_approvals.lineage.names import APPROVAL_JOBS
from airflow_approvals.lineage.spool import Lineage
from airflow_approvals.store.append_only import guard_names
from airflow_approvals.store.lineage import SqlLineageSpool
from airflow_approvals.store.outbox import SqlOutbox
from airflow_approvals.web import background, witnesses
from airflow_approvals.web.backend import Backend
from airflow_approvals.web.background import Background
from airflow_approvals.web.lineage import LineageBackend, LineageParts
from airflow_approvals.web.witnesses import Witnesses
from airflow_approvals.witness import check_witness, open_witness
from tests.lineage.spec import Spec
from tests.web.site import Site, utc_now


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, f"sqlite:///{tmp_path / 'airflow.db'}")
    yield found
    found.store.close()


def loop_of(site: Site, witness: str) -> Background:
    return Background(Backend(lambda: site.service, replace(site.settings, witness=witness)))


def heads(witness: Path) -> list[int]:
    return sorted(int(path.name.partition(".")[0]) for path in witness.glob("*.checkpoint"))


def at(monkeypatch: pytest.MonkeyPatch, **later: float) -> None:
    moment = utc_now() + timedelta(**later)
    monkeypatch.setattr(background, "now", lambda: moment)


def test_heads_are_published_every_interval_and_only_if_something_is_new(
    still: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = tmp_path / "witness"
    loop = loop_of(still, str(witness))
    asyncio.run(loop.run_once())
    assert heads(witness) == [2]  # the key, and the policy
    still.service.record_refusal("mallory", None, "open", VerificationError("x"), now=utc_now())
    asyncio.run(loop.run_once())
    assert heads(witness) == [2]  # not yet
    at(monkeypatch, seconds=301)
    asyncio.run(loop.run_once())
    assert heads(witness) == [2, 3]
    at(monkeypatch, seconds=700)
    asyncio.run(loop.run_once())
    assert heads(witness) == [2, 3]
    assert "the ledger goes on" in check_witness(open_witness(str(witness)), still.store)


SLACK = "slack://slack_approvals/C0123456"


class Channel:
    """A Slack workspace that keeps what is posted, or is away."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.is_away = False

    def get(self, _: str) -> Channel:
        return self

    def call(self, method: str, *, now: datetime, **arguments: Any) -> dict[str, Any]:
        if self.is_away:
            raise SendError("Slack did not answer")
        self.posted.append({"method": method, **arguments})
        return {}


def channels_with(channel: Channel, site: Site) -> Any:
    """Return the channels of a process, of which nothing but Slack is there."""
    deliveries = SimpleNamespace(outbox=SqlOutbox(site.store.engine))
    return SimpleNamespace(channels=SimpleNamespace(workspaces=channel, deliveries=deliveries))


def lineage_of(site: Site) -> LineageBackend:
    spool = SqlLineageSpool(site.store.engine)
    here = LineageSite(namespace="default", base_url=site.base_url)
    nowhere: Any = None
    parts = LineageParts(
        build=lambda service: Lineage(spool, nowhere, service, here), spool_of=lambda _: spool
    )
    return LineageBackend(Backend(lambda: site.service, site.settings), parts)


def processes(site: Site, witness: str, channel: Channel) -> tuple[Background, Background]:
    """Return the loops of two API servers."""

    def one() -> Background:
        backend = Backend(lambda: site.service, replace(site.settings, witness=witness))
        return Background(backend, Witnesses(backend, channels_with(channel, site), lineage_of(site)))

    return one(), one()


def test_a_head_goes_to_slack_once_in_a_long_interval_too(still: Site) -> None:
    channel: Any = Channel()  # in place of the workspaces
    outbox = SqlOutbox(still.store.engine)
    asyncio.run(loop_of(still, "").run_once())
    size, note = still.store.last_checkpoint() or (0, "")
    assert size > 0
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    for minutes in (1, 20, 40):  # three processes, which were not started at once
        moment = midnight + timedelta(minutes=minutes)
        outbox.is_first_use(f"{minutes:064}", now=moment)  # clicks come in between
        post_head(channel, outbox, SLACK, head_of(note), interval=3600.0, now=moment)
    assert len(channel.posted) == 1


def test_heads_go_to_slack_once_an_interval_and_bind_the_ledger(
    still: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = Channel()
    loops = processes(still, SLACK, channel)
    at(monkeypatch, seconds=0)  # the same for both: intervals begin on the clock
    for loop in loops:
        asyncio.run(loop.run_once())
    (posted,) = channel.posted  # one of them was first
    assert (posted["method"], posted["channel"]) == ("chat.postMessage", "C0123456")
    (head,) = heads_in(posted["text"])
    keys = by_keyid([still.service.signer.public_key])  # type: ignore[attr-defined]  # a key file's signer has it
    assert verify_checkpoint(head.note, keys).root == still.store.ledger_root(head.size)
    for later in (301, 602):
        at(monkeypatch, seconds=later)
        still.service.record_refusal("mallory", None, "open", VerificationError("x"), now=utc_now())
        for loop in loops:
            asyncio.run(loop.run_once())
    assert [heads_in(each["text"])[0].size for each in channel.posted] == [2, 3, 4]


def test_heads_go_into_lineage_once_each_in_a_facet_of_their_own(still: Site) -> None:
    for loop in processes(still, "lineage", Channel()):
        asyncio.run(loop.run_once())
    spool = SqlLineageSpool(still.store.engine)
    waiting = spool.next_due(now=utc_now() + timedelta(minutes=1))
    assert waiting is not None
    assert spool.counts() == {"queued": 1}
    event = json.loads(waiting.body)
    Spec(None).check([event])
    facet = event["run"]["facets"]["airflowApprovals_checkpoint"]
    assert event["job"]["name"].startswith(APPROVAL_JOBS)  # no worker can tell one
    assert heads_in(waiting.body) == heads_in(facet["line"])
    assert heads_in(facet["line"])[0].note == facet["note"] == (still.store.last_checkpoint() or (0, ""))[1]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what was warned of, wherever Airflow's logging leads once it is set up."""
    said: list[str] = []
    monkeypatch.setattr(witnesses.log, "warning", lambda form, *parts: said.append(form % parts))
    return said


def test_a_witness_that_is_away_or_wrong_keeps_no_other_from_its_head(
    still: Site, tmp_path: Path, warned: list[str]
) -> None:
    channel, folder = Channel(), tmp_path / "witness"
    channel.is_away = True
    loop, _ = processes(still, f"slack://wrong {SLACK}, nosuchstore://x/y {folder}", channel)
    asyncio.run(loop.run_once())
    assert heads(folder) == [2]
    wrong = ("cannot be reached", "expected slack://CONN_ID/CHANNEL", "Slack did not answer")
    assert [told in said for told, said in zip(wrong, warned, strict=True)] == [True] * 3


def test_a_folder_that_cannot_be_written_keeps_no_other_from_its_head(
    still: Site, tmp_path: Path, warned: list[str]
) -> None:
    (tmp_path / "full").touch()
    loop = loop_of(still, f"{tmp_path / 'full' / 'below'} {tmp_path / 'witness'}")
    asyncio.run(loop.run_once())
    assert heads(tmp_path / "witness") == [2]
    (told,) = warned
    assert f"witness {tmp_path / 'full' / 'below'}: " in told


def test_slack_and_lineage_that_are_not_there_are_said(still: Site, warned: list[str]) -> None:
    asyncio.run(loop_of(still, f"{SLACK} lineage").run_once())
    wrong = ("no channels to post to", "no OpenLineage transport")
    assert [told in said for told, said in zip(wrong, warned, strict=True)] == [True] * 2


def test_a_policy_that_was_weakened_and_put_back_is_on_record_each_time(still: Site) -> None:
    strict = still.policy_file.read_text()
    weak = strict.replace(
        "require: [{group: data-stewards}, {group: security}]", "require: [{group: security}]"
    )
    loop = loop_of(still, "")
    for text_of_file in (strict, weak, strict):
        still.policy_file.write_text(text_of_file)
        still.service.policies.current()
        asyncio.run(loop.run_once())
    digests = [
        json.loads(entry.body)["data"]["digest"]
        for entry in still.store.entries_of_kind("policy.loaded", limit=10)
    ]
    assert len(digests) == 3
    assert digests[0] == digests[2] != digests[1]


def test_without_the_setting_nothing_is_published(still: Site, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    asyncio.run(loop_of(still, "").run_once())
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {"airflow.db-wal", "airflow.db-shm"}


def test_a_ledger_that_was_cut_back_is_said_loudly_and_nothing_is_published_over_it(
    still: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    witness = tmp_path / "witness"
    loop = loop_of(still, str(witness))
    asyncio.run(loop.run_once())
    kept = {path.name: path.read_text() for path in witness.iterdir()}
    with still.store.engine.begin() as connection:
        for name in guard_names("sqlite"):
            connection.execute(text(f"DROP TRIGGER {name}"))
        for table in ("approvals_ledger_entry", "approvals_ledger_node", "approvals_checkpoint"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608  # our own table names
        connection.execute(text("UPDATE approvals_ledger_head SET size = 0, peaks = x''"))
    at(monkeypatch, seconds=301)
    with caplog.at_level(logging.CRITICAL):
        asyncio.run(loop_of(still, str(witness)).run_once())
    assert "the ledger" in caplog.text
    assert {path.name: path.read_text() for path in witness.iterdir()} == kept
    still.service.record_refusal("x", None, "open", VerificationError("x"), now=utc_now())
    with pytest.raises(LedgerTamperedError):
        check_witness(open_witness(str(witness)), still.store)
