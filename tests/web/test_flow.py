"""The whole life of a request through the API: opened, voted, redeemed, published, proven."""

from __future__ import annotations

import io

import pytest
from sqlalchemy import text

from airflow_approvals.core.errors import NotAllowedError, VerificationError, VoteRefusedError
from airflow_approvals.core.export import verify_export
from airflow_approvals.core.model import State, Verdict
from airflow_approvals.core.receipt import verify_bundle
from airflow_approvals.core.signature import public_keys_from_json
from tests.web.site import Site, an_opening


def test_an_approved_export_is_redeemed_reported_and_proven(site: Site) -> None:
    ti_id = site.add_task()
    with site.worker(ti_id) as worker, site.person("alice") as alice, site.person("audrey") as audrey:
        request, created = worker.open_request(an_opening())
        assert created
        assert request.state is State.PENDING
        assert request.requesters == ("engineer",)

        again, created = worker.open_request(an_opening())
        assert (again.id, created) == (request.id, False)

        detail = alice.get_request(request.id)
        assert detail.progress is not None
        assert not detail.progress["is_met"]
        assert detail.receipt is None

        approved = alice.vote(request.id, Verdict.APPROVE, revision=1, reason="looks right")
        assert approved.state is State.APPROVED

        bundle = worker.redeem(request.id, ti_id=ti_id, digest=request.action_digest)
        keys = public_keys_from_json(audrey.keys())
        receipt = verify_bundle(bundle, keys)
        assert receipt.request_id == request.id
        assert receipt.action_digest == request.action_digest

        published = request.evidence.datasets[0].sha256
        reported = worker.report_outcome(request.id, ti_id=ti_id, published=True, digest=published)
        assert reported.state is State.COMPLETED
        kept = audrey.get_request(request.id).receipt
        assert verify_bundle(kept, keys).payload_sha256 == receipt.payload_sha256

        export = b"".join(audrey.export())
        report = verify_export(io.BytesIO(export), keys)
        assert report.entries == audrey.checkpoint()["size"]


def test_requesters_and_strangers_are_refused_and_the_ledger_tells_so(site: Site) -> None:
    ti_id = site.add_task()
    with site.worker(ti_id) as worker:
        request, _ = worker.open_request(an_opening())
    site.users.readers_of["export"] = {"engineer", "mallory"}
    for name in ("engineer", "mallory"):
        with site.person(name) as person, pytest.raises(VoteRefusedError):
            person.vote(request.id, "approve", revision=1)
    refused = [entry for entry in site.ledger() if entry["kind"] == "attempt.refused"]
    assert [entry["actor"] for entry in refused] == ["engineer", "mallory"]


def test_publishing_other_bytes_than_approved_never_completes_a_request(site: Site) -> None:
    ti_id = site.add_task()
    with site.worker(ti_id) as worker, site.person("alice") as alice:
        request, _ = worker.open_request(an_opening())
        alice.vote(request.id, Verdict.APPROVE, revision=1)
        worker.redeem(request.id, ti_id=ti_id, digest=request.action_digest)
        reported = worker.report_outcome(request.id, ti_id=ti_id, published=True, digest="c" * 64)
    assert reported.state is State.FAILED
    assert reported.outcome is not None
    assert reported.outcome.digest == "c" * 64


REWRITES = {
    "cut back": "UPDATE approvals_ledger_head SET size = 1",
    "history rewritten": "UPDATE approvals_ledger_node SET hash = (SELECT hash FROM approvals_ledger_node "
    "WHERE level = 0 AND idx = 0) WHERE level > 0 OR idx > 0",
}


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES.keys())
def test_a_ledger_that_was_rewritten_in_the_database_gets_no_new_signature(site: Site, rewrite: str) -> None:
    ti_id = site.add_task()
    with site.person("audrey") as audrey, site.worker(ti_id) as worker:
        worker.open_request(an_opening())
        signed = audrey.checkpoint()
        assert signed["size"] > 1
        with site.store.engine.begin() as connection:
            triggers = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
            for name in triggers.scalars().all():
                connection.execute(text(f"DROP TRIGGER {name}"))
            connection.execute(text(rewrite))
        if "head" not in rewrite:
            worker.open_request(an_opening("others"))  # grows past the size that was signed
        with pytest.raises(VerificationError, match="nothing is signed"):
            audrey.checkpoint()


def test_an_export_of_the_ledger_is_for_auditors(site: Site) -> None:
    with site.person("alice") as alice, pytest.raises(NotAllowedError, match="auditors"):
        b"".join(alice.export())


def test_a_receipt_is_shown_again_without_signing_again(site: Site) -> None:
    ti_id = site.add_task()
    with site.worker(ti_id) as worker, site.person("alice") as alice:
        request, _ = worker.open_request(an_opening())
        alice.vote(request.id, Verdict.APPROVE, revision=1)
        first = alice.get_request(request.id).receipt
        worker.open_request(an_opening("others", gate="second"))
        assert alice.get_request(request.id).receipt == first
        assert verify_bundle(first, public_keys_from_json(alice.keys())).request_id == request.id


def test_a_revoked_approval_still_shows_its_receipt_and_its_place(site: Site) -> None:
    ti_id = site.add_task()
    with site.worker(ti_id) as worker, site.person("alice") as alice:
        request, _ = worker.open_request(an_opening())
        alice.vote(request.id, Verdict.APPROVE, revision=1)
        alice.revoke(request.id, reason="wrong partner")
        detail = alice.get_request(request.id)
        assert detail.request.state is State.REVOKED
        assert verify_bundle(detail.receipt, public_keys_from_json(alice.keys())).request_id == request.id
