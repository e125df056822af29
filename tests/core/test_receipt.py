"""A receipt proves one decision about exact bytes; anything else is refused."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import string
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from airflow_approvals.core import receipt as receipts
from airflow_approvals.core.canonical import canonical_json, digest_of, sha256_hex
from airflow_approvals.core.checkpoint import sign_checkpoint
from airflow_approvals.core.dsse import sign_envelope, verify_envelope
from airflow_approvals.core.errors import (
    DigestMismatchError,
    InvalidRequestError,
    ReceiptGoneError,
    ReceiptInvalidError,
    VerificationError,
)
from airflow_approvals.core.ledger import entry_body
from airflow_approvals.core.merkle import Frontier, grow, inclusion_proof, leaf_hash, root_of
from airflow_approvals.core.model import (
    Action,
    ApprovalRequest,
    Channel,
    EntryDraft,
    Evidence,
    FileDigest,
    Origin,
    Person,
    Snapshot,
    State,
    Verdict,
    Vote,
    digest_of_action,
)
from airflow_approvals.core.receipt import PAYLOAD_TYPE, Receipt, Subject
from airflow_approvals.core.signature import by_keyid
from airflow_approvals.core.statement import StatedAction
from airflow_approvals.keys import KeySigner

SIGNER = KeySigner(CryptoSigner.generate_ed25519())
OTHER = KeySigner(CryptoSigner.generate_ed25519())
KEYS = by_keyid([SIGNER.public_key])
NOW = datetime(2026, 1, 31, 8, 15, tzinfo=UTC)
UNTIL = NOW + timedelta(minutes=30)
Json = dict[str, Any]


def snapshot(uri: str, *names: str) -> Snapshot:
    files = tuple(FileDigest(name=name, sha256=sha256_hex(name.encode()), size=len(name)) for name in names)
    return Snapshot(
        uri=uri,
        format="csv",
        sha256=files[0].sha256 if len(files) == 1 else digest_of([file.name for file in files]),
        size=7,
        rows=3,
        columns=(),
        schema_sha256=digest_of([]),
        files=files,
    )


def request_of(**changes: Any) -> ApprovalRequest:
    action = changes.pop(
        "action", Action(kind="export", source="s3://größe/客户.csv", justification="für Zoë")
    )
    evidence = changes.pop("evidence", Evidence(datasets=(snapshot("s3://größe/客户.csv", "客户.csv"),)))
    digest = digest_of_action(action, evidence)
    vote = Vote(
        voter=Person("alice"),
        verdict=Verdict.APPROVE,
        reason="the reason stays out of the receipt",
        channel=Channel.PAGE,
        cast_at=NOW - timedelta(seconds=5),
        revision=1,
        shown_digest=digest,
        groups=("données",),
    )
    facts: Json = {
        "id": "0b9a6d0e-6f0a-4b70-a7f4-0e3b9f6c5d11",
        "revision": 1,
        "state": State.APPROVED,
        "action": action,
        "evidence": evidence,
        "action_digest": digest,
        "gate": "",
        "opened_by": "worker",
        "requesters": (Person("zoë"),),
        "origin": Origin(
            ti_id="t",
            dag_id="export_客户",
            run_id="manual__1",
            task_id="publish",
            map_index=-1,
            try_number=1,
            run_type="manual",
            state="running",
        ),
        "policy": "partner-export",
        "policy_digest": digest_of("policy"),
        "opened_at": NOW - timedelta(hours=1),
        "expires_at": NOW + timedelta(hours=3),
        "votes": (vote,),
    }
    return ApprovalRequest(**facts | changes)


REQUEST = request_of()


def statement(request: ApprovalRequest = REQUEST) -> Json:
    return receipts.statement_of(request, decided_at=NOW, not_after=UNTIL)


def envelope(request: ApprovalRequest = REQUEST) -> Json:
    return receipts.sign_receipt(statement(request), SIGNER)


def bundle(request: ApprovalRequest = REQUEST, **changes: Any) -> Json:
    """Return the receipt of `request` with its proof in a ledger of five entries."""
    signed = envelope(request)
    data = {"receipt_sha256": receipts.payload_sha256(signed)} | changes.pop("data", {})
    facts = {
        "kind": "request.approved",
        "request_id": request.id,
        "actor": "service",
        "time": NOW,
        "data": data,
    }
    frontier, nodes, bodies = Frontier(), {}, []
    for index in range(5):
        body = entry_body(EntryDraft(**(facts | changes)), index)
        frontier, complete = grow(frontier, leaf_hash(body))
        nodes.update({(node.level, node.index): node.hash for node in complete})
        bodies.append(body)
    note = sign_checkpoint(origin="客户/ledger", size=5, root=root_of(frontier), time=NOW, signer=SIGNER)
    proof = inclusion_proof(2, 5, lambda level, at: nodes[level, at])
    return receipts.make_bundle(signed, index=2, entry=bodies[2], inclusion=proof, checkpoint=note)


def test_a_receipt_says_what_was_decided() -> None:
    found = receipts.verify_receipt(envelope(), KEYS)
    assert found == Receipt(
        keyid=SIGNER.keyid,
        payload_sha256=sha256_hex(canonical_json(statement())),
        subjects=(Subject(name="s3://größe/客户.csv", sha256=sha256_hex("客户.csv".encode())),),
        request_id=REQUEST.id,
        revision=1,
        action=REQUEST.action,
        action_digest=REQUEST.action_digest,
        requesters=(Person("zoë"),),
        origin=receipts.ReceiptOrigin(
            dag_id="export_客户", run_id="manual__1", task_id="publish", map_index=-1
        ),
        gate="",
        policy="partner-export",
        policy_digest=REQUEST.policy_digest,
        votes=found.votes,
        decided_at=NOW,
        not_after=UNTIL,
    )
    (vote,) = found.votes
    assert (vote.voter, vote.verdict, vote.channel, vote.groups, vote.self_approval) == (
        "alice",
        Verdict.APPROVE,
        Channel.PAGE,
        ("données",),
        False,
    )


def test_a_receipt_verifies_twice_and_leaves_the_envelope_as_it_was() -> None:
    signed = envelope()
    before = copy.deepcopy(signed)
    assert receipts.verify_receipt(signed, KEYS) == receipts.verify_receipt(signed, KEYS)
    assert signed == before


def test_the_reason_of_a_vote_stays_out_of_the_receipt() -> None:
    assert b"reason" not in canonical_json(statement())


def test_each_file_of_a_folder_is_a_subject() -> None:
    evidence = Evidence(
        datasets=(snapshot("s3://b/out/", "a.csv", "sub/b.csv"), snapshot("file:///x.csv", "x.csv"))
    )
    found = receipts.verify_receipt(envelope(request_of(evidence=evidence)), KEYS)
    assert [subject.name for subject in found.subjects] == [
        "s3://b/out/a.csv",
        "s3://b/out/sub/b.csv",
        "file:///x.csv",
    ]


def test_an_action_without_data_is_itself_the_subject() -> None:
    request = request_of(evidence=Evidence(), action=Action(kind="rotate_key"), origin=None)
    found = receipts.verify_receipt(envelope(request), KEYS)
    assert found.subjects == (Subject(name="action", sha256=request.action_digest),)
    assert found.origin is None


def test_a_self_approval_is_stated() -> None:
    request = request_of(requesters=(Person("alice"),))
    assert receipts.verify_receipt(envelope(request), KEYS).votes[0].self_approval


def test_the_lengths_that_are_signed_count_bytes() -> None:
    signed: list[bytes] = []

    class Recorder(KeySigner):
        def sign(self, payload: bytes) -> bytes:
            signed.append(payload)
            return super().sign(payload)

    made = sign_envelope("é".encode(), "t/é", Recorder(CryptoSigner.generate_ed25519()))
    assert signed == ["DSSEv1 4 t/é 2 é".encode()]
    assert base64.b64decode(made["payload"]) == "é".encode()


def test_a_published_dsse_encoding_is_met() -> None:
    # The example of the DSSE v1.0.0 protocol document.
    signed: list[bytes] = []

    class Recorder(KeySigner):
        def sign(self, payload: bytes) -> bytes:
            signed.append(payload)
            return b"x"

    sign_envelope(b"hello world", "http://example.com/HelloWorld", Recorder(CryptoSigner.generate_ed25519()))
    assert signed == [b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"]


def test_a_statement_is_not_made_for_another_digest() -> None:
    with pytest.raises(DigestMismatchError):
        statement(replace(REQUEST, action_digest=digest_of("other")))


def test_a_statement_does_not_end_before_it_begins() -> None:
    with pytest.raises(InvalidRequestError):
        receipts.statement_of(REQUEST, decided_at=NOW, not_after=NOW)


def test_the_receipt_states_every_field_of_an_action() -> None:
    assert list(StatedAction.model_fields) == [field.name for field in dataclasses.fields(Action)]


def test_a_receipt_covers_its_action_while_it_is_valid() -> None:
    found = receipts.verify_receipt(envelope(), KEYS)
    receipts.check_covers(found, action_digest=REQUEST.action_digest, now=NOW)
    receipts.check_covers(found, action_digest=REQUEST.action_digest, now=UNTIL - timedelta(microseconds=1))
    with pytest.raises(ReceiptGoneError):
        receipts.check_covers(found, action_digest=REQUEST.action_digest, now=UNTIL)
    with pytest.raises(ReceiptGoneError):
        receipts.check_covers(found, action_digest=REQUEST.action_digest, now=NOW - timedelta(seconds=1))


def test_a_receipt_is_not_replayed_for_another_action_or_other_bytes() -> None:
    found = receipts.verify_receipt(envelope(), KEYS)
    other_bytes = Evidence(datasets=(snapshot("s3://größe/客户.csv", "other"),))
    for request in (request_of(action=Action(kind="delete")), request_of(evidence=other_bytes)):
        with pytest.raises(DigestMismatchError):
            receipts.check_covers(found, action_digest=request.action_digest, now=NOW)


def resigned(change: Callable[[Json], object]) -> Json:
    """Return a receipt with a changed statement, properly signed: the shape itself must be refused."""
    made = statement()
    change(made)
    return receipts.sign_receipt(made, SIGNER)


def signed_bytes(payload: bytes) -> Json:
    return sign_envelope(payload, PAYLOAD_TYPE, SIGNER)


def with_signature(**changes: Any) -> Json:
    signed = envelope()
    return {**signed, "signatures": [signed["signatures"][0] | changes]}


def payload_changed(old: bytes, new: bytes) -> Json:
    signed = envelope()
    payload = base64.b64decode(signed["payload"])
    assert old in payload
    return {**signed, "payload": base64.b64encode(payload.replace(old, new)).decode()}


def loosened(text: str) -> str:
    """Return other base64 text that lenient decoders read as the same 64 bytes."""
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    changed = text[:-3] + letters[letters.index(text[-3]) + 1] + "=="
    assert base64.b64decode(changed) == base64.b64decode(text)
    return changed


TAMPERINGS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "a list": lambda: [envelope()],
    "empty": dict,
    "voter changed": lambda: payload_changed(b"alice", b"mallo"),
    "subject digest changed": lambda: payload_changed(sha256_hex("客户.csv".encode()).encode(), b"0" * 64),
    "not_after changed": lambda: payload_changed(b"08:45", b"23:45"),
    "payload missing": lambda: {name: value for name, value in envelope().items() if name != "payload"},
    "payload empty": lambda: {**envelope(), "payload": ""},
    "payload not base64": lambda: {**envelope(), "payload": "?" + envelope()["payload"][1:]},
    "payload not text": lambda: {**envelope(), "payload": 7},
    "payload beyond ASCII": lambda: {**envelope(), "payload": "é" + envelope()["payload"]},
    "payload with line breaks": lambda: {**envelope(), "payload": envelope()["payload"] + "\n"},
    "extra field": lambda: {**envelope(), "extra": 1},
    "another payload type": lambda: {**envelope(), "payloadType": "text/plain"},
    "another payload type, signed": lambda: sign_envelope(canonical_json(statement()), "text/plain", SIGNER),
    "no signatures": lambda: {**envelope(), "signatures": []},
    "signatures no list": lambda: {**envelope(), "signatures": envelope()["signatures"][0]},
    "two signatures": lambda: {**envelope(), "signatures": envelope()["signatures"] * 2},
    "extra field in a signature": lambda: with_signature(cert="x"),
    "no key id": lambda: {**envelope(), "signatures": [{"sig": envelope()["signatures"][0]["sig"]}]},
    "unknown key id": lambda: with_signature(keyid="0" * 64),
    "signed by an unknown key": lambda: receipts.sign_receipt(statement(), OTHER),
    "an unknown key's signature under a known id": lambda: with_signature(
        sig=receipts.sign_receipt(statement(), OTHER)["signatures"][0]["sig"]
    ),
    "signature empty": lambda: with_signature(sig=""),
    "signature not base64": lambda: with_signature(sig="***"),
    "signature with bits after the end": lambda: with_signature(
        sig=loosened(envelope()["signatures"][0]["sig"])
    ),
    "signature too short": lambda: with_signature(sig="AAAA"),
    "signature of another receipt": lambda: with_signature(
        sig=envelope(request_of(requesters=()))["signatures"][0]["sig"]
    ),
    "signed, not JSON": lambda: signed_bytes(b"no"),
    "signed, not UTF-8": lambda: signed_bytes(b"\xff"),
    "signed, a list": lambda: signed_bytes(b"[]"),
    "signed, too deep": lambda: signed_bytes(b"[" * 100_000),
    "signed, NaN": lambda: signed_bytes(
        canonical_json(statement()).replace(b'"revision":1', b'"revision":NaN')
    ),
    "signed, a name twice": lambda: signed_bytes(
        canonical_json(statement()).replace(b'"revision":1', b'"revision":1,"revision":1')
    ),
    "signed, another statement type": lambda: resigned(
        lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")
    ),
    "signed, another predicate type": lambda: resigned(
        lambda s: s.update(predicateType="https://slsa.dev/x")
    ),
    "signed, no subjects": lambda: resigned(lambda s: s.update(subject=[])),
    "signed, no subject": lambda: resigned(lambda s: s.pop("subject")),
    "signed, subject without digest": lambda: resigned(lambda s: s["subject"][0].update(digest={})),
    "signed, another digest algorithm": lambda: resigned(
        lambda s: s["subject"][0].update(digest={"md5": "0" * 64})
    ),
    "signed, a second digest algorithm": lambda: resigned(
        lambda s: s["subject"][0]["digest"].update(md5="0")
    ),
    "signed, digest in capitals": lambda: resigned(
        lambda s: s["subject"][0].update(digest={"sha256": "A" * 64})
    ),
    "signed, digest with a newline": lambda: resigned(
        lambda s: s["subject"][0].update(digest={"sha256": "a" * 64 + "\n"})
    ),
    "signed, subject without a name": lambda: resigned(lambda s: s["subject"][0].update(name="")),
    "signed, extra field": lambda: resigned(lambda s: s.update(extra=1)),
    "signed, extra field in the predicate": lambda: resigned(lambda s: s["predicate"].update(extra=1)),
    "signed, extra field in the action": lambda: resigned(lambda s: s["predicate"]["action"].update(extra=1)),
    "signed, field missing": lambda: resigned(lambda s: s["predicate"].pop("gate")),
    "signed, votes missing": lambda: resigned(lambda s: s["predicate"].pop("votes")),
    "signed, revision as text": lambda: resigned(lambda s: s["predicate"].update(revision="1")),
    "signed, revision as bool": lambda: resigned(lambda s: s["predicate"].update(revision=True)),
    "signed, revision as fraction": lambda: resigned(lambda s: s["predicate"].update(revision=1.5)),
    "signed, origin of another form": lambda: resigned(lambda s: s["predicate"].update(origin={})),
    "signed, unknown channel": lambda: resigned(lambda s: s["predicate"]["votes"][0].update(channel="fax")),
    "signed, unknown verdict": lambda: resigned(lambda s: s["predicate"]["votes"][0].update(verdict="maybe")),
    "signed, self approval hidden": lambda: resigned(lambda s: s["predicate"].update(requesters=["alice"])),
    "signed, self approval as number": lambda: resigned(
        lambda s: s["predicate"]["votes"][0].update(self_approval=0)
    ),
    "signed, one voter twice": lambda: resigned(
        lambda s: s["predicate"].update(votes=s["predicate"]["votes"] * 2)
    ),
    "signed, something else was shown": lambda: resigned(
        lambda s: s["predicate"]["votes"][0].update(shown_digest="0" * 64)
    ),
    "signed, a time without a zone": lambda: resigned(
        lambda s: s["predicate"].update(decided_at="2026-01-31T08:15:00")
    ),
    "signed, a time as number": lambda: resigned(lambda s: s["predicate"].update(not_after=1)),
    "signed, ends before it begins": lambda: resigned(
        lambda s: s["predicate"].update(not_after="2026-01-31T08:00:00.000000Z")
    ),
}


@pytest.mark.parametrize("make", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_a_receipt_with_anything_odd_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ReceiptInvalidError):
        receipts.verify_receipt(make(), KEYS)


def test_no_refusal_repeats_what_the_receipt_holds() -> None:
    with pytest.raises(ReceiptInvalidError) as caught:
        receipts.verify_receipt(resigned(lambda s: s["predicate"].update(revision="secret-value")), KEYS)
    assert "predicate.revision" in str(caught.value)
    assert "secret-value" not in str(caught.value)


@given(st.integers(0, 1 << 20), st.integers(1, 255))
def test_any_changed_byte_of_the_payload_is_found(position: int, change: int) -> None:
    signed = envelope()
    payload = bytearray(base64.b64decode(signed["payload"]))
    payload[position % len(payload)] ^= change
    with pytest.raises(ReceiptInvalidError):
        receipts.verify_receipt({**signed, "payload": base64.b64encode(payload).decode()}, KEYS)


def test_no_known_key_means_no_valid_receipt() -> None:
    with pytest.raises(ReceiptInvalidError, match="none of the 0 known keys"):
        verify_envelope(envelope(), PAYLOAD_TYPE, {})


def test_a_bundle_proves_the_decision_in_the_ledger() -> None:
    passed_on = json.loads(json.dumps(bundle()))
    found = receipts.verify_bundle(passed_on, KEYS)
    assert found.ledger is not None
    assert (found.ledger.index, found.ledger.checkpoint.size) == (2, 5)
    assert replace(found, ledger=None) == receipts.verify_receipt(envelope(), KEYS)


def changed_bundle(change: Callable[[Json], object], **facts: Any) -> Json:
    made = bundle(**facts)
    change(made)
    return made


def keep(made: Json) -> None:
    """Change nothing."""


OTHER_REQUEST = request_of(id="7e1c4a52-1111-4a70-a7f4-0e3b9f6c5d11")
BUNDLE_TAMPERINGS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "another media type": lambda: changed_bundle(lambda b: b.update(mediaType="x")),
    "no ledger": lambda: changed_bundle(lambda b: b.pop("ledger")),
    "extra field": lambda: changed_bundle(lambda b: b.update(extra=1)),
    "extra field in the ledger part": lambda: changed_bundle(lambda b: b["ledger"].update(extra=1)),
    "receipt of another request": lambda: changed_bundle(
        lambda b: b.update(envelope=envelope(OTHER_REQUEST))
    ),
    "receipt of another decision on the same request": lambda: changed_bundle(
        lambda b: b.update(envelope=envelope(request_of(policy="other")))
    ),
    "ledger part of another request": lambda: changed_bundle(
        lambda b: b.update(ledger=bundle(OTHER_REQUEST)["ledger"])
    ),
    "receipt changed": lambda: changed_bundle(lambda b: b["envelope"].update(payload="AAAA")),
    "another index": lambda: changed_bundle(lambda b: b["ledger"].update(index=3)),
    "index as text": lambda: changed_bundle(lambda b: b["ledger"].update(index="2")),
    "negative index": lambda: changed_bundle(lambda b: b["ledger"].update(index=-1)),
    "entry changed": lambda: changed_bundle(
        lambda b: b["ledger"].update(entry=b["ledger"]["entry"].replace("service", "mallory"))
    ),
    "entry with a lone surrogate": lambda: changed_bundle(lambda b: b["ledger"].update(entry="\ud800")),
    "proof shorter": lambda: changed_bundle(lambda b: b["ledger"]["inclusion"].pop()),
    "proof swapped": lambda: changed_bundle(lambda b: b["ledger"]["inclusion"].reverse()),
    "proof not hex": lambda: changed_bundle(lambda b: b["ledger"]["inclusion"].append("zz")),
    "proof endless": lambda: changed_bundle(lambda b: b["ledger"]["inclusion"].extend(["0" * 64] * 100)),
    "checkpoint of another size": lambda: changed_bundle(
        lambda b: b["ledger"].update(checkpoint=b["ledger"]["checkpoint"].replace("\n5\n", "\n6\n"))
    ),
    "checkpoint by an unknown key": lambda: changed_bundle(
        lambda b: b["ledger"].update(
            checkpoint=sign_checkpoint(origin="x", size=5, root=b"x" * 32, time=NOW, signer=OTHER)
        )
    ),
    "in the ledger, as a denial": lambda: changed_bundle(keep, kind="request.denied"),
    "in the ledger, for another request": lambda: changed_bundle(keep, request_id="other"),
    "in the ledger, for no request": lambda: changed_bundle(keep, request_id=None),
    "in the ledger, with another receipt": lambda: changed_bundle(keep, data={"receipt_sha256": "0" * 64}),
}


@pytest.mark.parametrize("make", BUNDLE_TAMPERINGS.values(), ids=BUNDLE_TAMPERINGS.keys())
def test_a_bundle_with_anything_odd_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(VerificationError):
        receipts.verify_bundle(make(), KEYS)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_any_json_is_refused_with_the_receipts_own_error(value: object) -> None:
    with pytest.raises(ReceiptInvalidError):
        receipts.verify_receipt(value, KEYS)
    with pytest.raises(ReceiptInvalidError):
        receipts.verify_bundle(value, KEYS)
