"""What the policy file may say, and that everything that is wrong with one is told with its line."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.model import Person
from airflow_approvals.core.policy import (
    Policy,
    PolicyFile,
    digest_of_policy,
    parse_policy_file,
)
from airflow_approvals.core.policy_schema import DESCRIPTIONS, policy_json_schema
from airflow_approvals.core.policy_words import duration_text, parse_duration

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "policy.schema.json"
WHOLE = dedent("""\
    version: 1
    groups:
      data-stewards: {users: [Alice, bob], slack_usergroup: S0614TZR7}
      security:      {users: [carol]}
      admins:        {users: [root]}
    channels:
      data-approvals: {kind: slack, conn_id: slack_approvals, channel: "C0123456"}
    policies:
      - name: partner-export
        match: {action: [export], destination: ["s3://partner-*/**", "file:///*/outbox/**"]}
        require:
          - {group: data-stewards, approvals: 1}
          - {group: security, approvals: 1, when: "pii.residual > 0 || dataset.rows > 100000"}
        deny_if: ["pii.verified == false"]
        self_approval: never
        require_reason: on_deny
        expires_after: 4h
        receipt_valid_for: 30m
        channels: [page]
        remind_every: 1h
        escalate: {after: 2h, to: security}
        notify: [data-approvals]
        standing: {max_days: 30, void_on: [schema, mask_policy, residual_pii, "rows > 1.2x"]}
        break_glass: {group: security}
    protected_connections: ["prod_*"]
    gated_operators:
      - {operator: "S3CopyObjectOperator", policy: partner-export}
    """)
SMALL = dedent("""\
    version: 1
    groups:
      g: {users: [alice, bob]}
      h: {users: [bob]}
    policies:
      - name: p
        match: {action: [export]}
        require: [{group: g}]
    """)


def parse(text: str) -> PolicyFile:
    return parse_policy_file(text, name="policy.yaml")


def small_policy(text: str = SMALL) -> Policy:
    return parse(text).policies[0]


def problems_of(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def test_the_whole_file_is_understood() -> None:
    found = parse(WHOLE)
    policy = found.find_policy("partner-export")
    assert policy is not None
    assert found.groups["data-stewards"].users == ("alice", "bob")
    assert (policy.expires_after, policy.receipt_valid_for) == (timedelta(hours=4), timedelta(minutes=30))
    assert policy.approver_groups == ("data-stewards", "security")
    assert policy.channels == ("page",)
    assert found.find_policy("nobody") is None


def test_what_is_not_said_is_the_strict_choice() -> None:
    policy = small_policy()
    assert (policy.self_approval, policy.require_reason) == ("never", "on_deny")
    assert (policy.expires_after, policy.receipt_valid_for) == (timedelta(days=1), timedelta(minutes=30))
    assert policy.require[0].approvals == 1


def test_a_user_group_that_no_slack_channel_can_tell_of_is_said() -> None:
    assert parse(WHOLE).notices() == ()
    without = WHOLE.replace("kind: slack", "kind: webhook").replace(', channel: "C0123456"', "")
    (notice,) = parse(without).notices()
    assert notice.startswith("groups.data-stewards.slack_usergroup: no channel of kind slack")


def test_a_user_groups_members_are_people_of_the_group_and_no_part_of_the_file() -> None:
    file = parse(WHOLE)
    filled = file.with_linked({"S0614TZR7": [Person("dora"), Person("bob")], "S0OTHER": [Person("mallory")]})
    assert filled.groups["data-stewards"].people == ("alice", "bob", "dora")
    assert filled.groups["security"].people == ("carol",)
    assert filled.digest == file.digest
    assert file.groups["data-stewards"].people == ("alice", "bob")


def test_a_policy_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        small_policy().self_approval = "allowed"


# Each row: what to replace in SMALL, by what, the line of the problem, and what is said about it.
BROKEN = {
    "not YAML": ("version: 1", "version: [1", 2, "broken YAML"),
    "tab": ("  g: {users", "\tg: {users", 3, "broken YAML"),
    "control character": ("alice, bob", "alice\x07, bob", 3, "does not allow"),
    "second document": ("policies:", "---\npolicies:", 5, "broken YAML"),
    "duplicate key": ("version: 1", "version: 1\nversion: 1", 2, "'version' is here twice"),
    "duplicate deep key": ("- name: p", "- name: p\n    name: q", 7, "'name' is here twice"),
    "anchor": ("users: [alice, bob]", "users: &all [alice, bob]", 3, "anchors and aliases"),
    "alias": ("users: [bob]", "users: *all", 4, "anchors and aliases"),
    "merge key": ("  - name: p", "  - <<: {}\n    name: p", 6, "not allowed"),
    "object tag": ("users: [bob]", "users: !!python/object/apply:os.system [exit]", 4, "not allowed"),
    "name tag": ("users: [bob]", "users: [!!python/name:os.system x]", 4, "not allowed"),
    "set tag": ("users: [bob]", "users: !!set {bob}", 4, "not allowed"),
    "date": ("users: [bob]", "users: [2024-01-01]", 4, "'timestamp' is not allowed"),
    "key that is no string": ("  h: {users", "  1: {users", 4, "a key that is not a string"),
    "key that is a list": ("  h: {users", "  ? [a, b]\n  : {users", 4, "a key that is not a string"),
    "unknown key at the top": ("version: 1", "version: 1\npolicy: x", 2, "policy: unknown key"),
    "unknown key of a policy": ("    match", "    expire_after: 4h\n    match", 7, "unknown key"),
    "unknown key of a match": ("action: [export]", "actions: [export]", 7, "unknown key"),
    "unknown key of a rule": ("{group: g}", "{group: g, count: 2}", 8, "unknown key"),
    "unknown key of a group": ("users: [bob]", "members: [bob]", 4, "unknown key"),
    "no version": ("version: 1\n", "", 1, "version: is missing"),
    "another version": ("version: 1", "version: 2", 1, "version: Input should be 1"),
    "version true": ("version: 1", "version: true", 1, "version: expected 1"),
    "no groups": ("groups:", "groups: {}\nchannels:", 2, "groups:"),
    "name that is a truth": ("users: [bob]", "users: [no]", 4, "expected a string; put it in quotes"),
    "name that is a number": ("users: [bob]", "users: [007]", 4, "expected a string; put it in quotes"),
    "users not a list": ("users: [bob]", "users: bob", 4, "expected a list"),
    "group not a map": ("h: {users: [bob]}", "h: [bob]", 4, "expected a map"),
    "empty group": ("users: [bob]", "users: []", 4, "empty group"),
    "empty user": ("users: [bob]", "users: ['']", 4, "name is empty"),
    "invisible user": ("users: [bob]", 'users: ["bo\\u200bb"]', 4, "U\\+200B"),
    "one person twice": ("users: [alice, bob]", "users: [alice, ALICE]", 3, "alice is here twice"),
    "bad group name": ("  h: {users", "  'h h': {users", 4, "groups.h h"),
    "no name": ("- name: p\n    match", "- match", 6, "name: is missing"),
    "empty match": ("{action: [export]}", "{}", 7, "empty match"),
    "match of nothing": ("{action: [export]}", "{action: null}", 7, "empty match"),
    "empty action list": ("[export]", "[]", 7, "at least one"),
    "no match": ("    match: {action: [export]}\n", "", 6, "match: is missing"),
    "bad action": ("[export]", "[Export]", 7, "match.action.0"),
    "bad glob": ("action: [export]", "destination: ['s3://b/[ab]']", 7, "holds one of"),
    "dot glob": ("action: [export]", "source: ['s3://b/../c']", 7, "empty segment, . or .."),
    "zero rules": ("[{group: g}]", "[]", 8, "at least one"),
    "no rules": ("    require: [{group: g}]\n", "", 6, "require: is missing"),
    "zero approvals": ("{group: g}", "{group: g, approvals: 0}", 8, "greater than or equal to 1"),
    "true approvals": ("{group: g}", "{group: g, approvals: true}", 8, "expected a whole number"),
    "half approvals": ("{group: g}", "{group: g, approvals: 1.5}", 8, "expected a whole number"),
    "too many approvals": ("{group: g}", "{group: g, approvals: 3}", 8, "has 2 members"),
    "same few people": ("[{group: g}]", "[{group: g, approvals: 2}, {group: h}]", 8, "3 different people"),
    "unknown group": ("{group: g}", "{group: k}", 8, "unknown group 'k'; known are g, h"),
    "bad CEL": ("{group: g}", "{group: g, when: 'a +'}", 8, "not a CEL expression"),
    "CEL on unknown": ("{group: g}", "{group: g, when: 'rows > 1'}", 8, "unknown variable 'rows'"),
    "CEL on unknown field": (
        "    match",
        "    deny_if: ['pii.x']\n    match",
        7,
        "deny_if.0: pii has no field 'x'",
    ),
    "CEL not text": ("    match", "    deny_if: [true]\n    match", 7, "expected a string"),
    "no such choice": ("    match", "    self_approval: sometimes\n    match", 7, "'never' or 'allowed'"),
    "duration as number": ("    match", "    expires_after: 90\n    match", 7, "expected a duration"),
    "duration in words": ("    match", "    expires_after: 4 hours\n    match", 7, "expected a duration"),
    "no duration": ("    match", "    receipt_valid_for: 0s\n    match", 7, "expected a duration"),
    "too long a duration": ("    match", "    receipt_valid_for: 91d\n    match", 7, "at most 90d"),
    "unknown channel": ("    match", "    notify: [x]\n    match", 7, "unknown channel 'x'; known are none"),
    "unknown vote channel": ("    match", "    channels: [fax]\n    match", 7, "channels.0"),
    "vote channel that only tells": ("    match", "    channels: [teams]\n    match", 7, "channels.0"),
    "no vote channel": ("    match", "    channels: []\n    match", 7, "at least one"),
    "escalate to nobody": (
        "    match",
        "    escalate: {after: 1h, to: k}\n    match",
        7,
        "unknown group 'k'",
    ),
    "break glass by nobody": ("    match", "    break_glass: {group: k}\n    match", 7, "unknown group 'k'"),
    "bad channel kind": ("version: 1", "version: 1\nchannels: {c: {kind: fax}}", 2, "channels.c.kind"),
    **{
        f"channel: {what}": ("version: 1", f"version: 1\nchannels:\n  c: {settings}", 3, reason)
        for what, settings, reason in (
            ("kind missing", "{conn_id: x}", "channels.c.kind: is missing"),
            ("kind of another type", "{kind: 5}", "channels.c.kind: expected one of slack, teams"),
            ("not a map", "slack", "channels.c: expected a map"),
            ("unknown key", "{kind: webhook, conn_id: x, url: y}", "channels.c.url: unknown key"),
            ("Slack without a channel", "{kind: slack, conn_id: x}", "channels.c.channel: is missing"),
            ("Slack without a connection", "{kind: slack, channel: C1}", "channels.c.conn_id: is missing"),
            ("Teams without a connection", "{kind: teams}", "channels.c.conn_id: is missing"),
            ("Teams host with a path", "{kind: teams, conn_id: x, host: a/b}", "name of a host"),
            ("webhook without a connection", "{kind: webhook}", "channels.c.conn_id: is missing"),
            ("mail to nobody", "{kind: email, conn_id: x, to: []}", "channels.c.to: expected at least one"),
            ("mail to no list", "{kind: email, conn_id: x, to: a@b.c}", "channels.c.to: expected a list"),
            (
                "mail to no address",
                "{kind: email, conn_id: x, to: [bob]}",
                "channels.c.to.0: expected an e-m",
            ),
            ("mail twice", "{kind: email, conn_id: x, to: [a@b.c, A@b.c]}", "is here twice"),
            ("two lines in an address", '{kind: email, conn_id: x, to: ["a\\n@b.c"]}', "an e-mail address"),
            ("notifier without a class", "{kind: notifier}", "channels.c.notifier: is missing"),
            ("notifier that is no path", "{kind: notifier, notifier: X}", "the path of a class"),
            ("connection with a space", "{kind: teams, conn_id: a b}", "the id of an Airflow connection"),
        )
    },
    "escalate to no channel": (
        "    match",
        "    escalate: {after: 1h, to: g, notify: [x]}\n    match",
        7,
        "escalate.notify.0: unknown channel 'x'",
    ),
    "gate of no policy": (
        "version: 1",
        "version: 1\ngated_operators: [{operator: X, policy: q}]",
        2,
        "gated_operators.0.policy: unknown policy 'q'",
    ),
}


@pytest.mark.parametrize(("old", "new", "line", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_broken_is_refused_with_line_and_reason(old: str, new: str, line: int, reason: str) -> None:
    assert old in SMALL
    problems = problems_of(SMALL.replace(old, new, 1))
    assert any(
        problem.startswith(f"policy.yaml:{line}: ") and re.search(reason, problem) for problem in problems
    ), problems


def test_duplicate_policy_names_are_refused() -> None:
    twice = SMALL + SMALL.partition("policies:\n")[2]
    assert problems_of(twice) == [
        "policy.yaml:9: policies.1.name: a policy named 'p' is here twice; rename one"
    ]


def test_all_problems_are_told_at_once_in_the_order_of_lines() -> None:
    text = dedent("""\
        version: 1
        groups:
          g: {users: [alice]}
          empty: {users: []}
        policies:
          - name: p
            match: {}
            require: [{group: g, approvals: many}]
          - name: q
            match: {action: [export]}
            require: [{group: nobody}, {group: empty}]
            deny_if: ["a +", "b"]
          - name: r
            match: {action: [write]}
            require: [{group: g, approvals: 2}]
          - name: r
            match: {action: [write]}
            require: [{group: k}]
            typo: 1
            typo: 2
        """)
    lines = [int(problem.split(":")[1]) for problem in problems_of(text)]
    assert lines == [4, 7, 8, 11, 12, 12, 15, 16, 18, 19, 20]


def test_groups_that_only_slack_knows_are_never_too_small() -> None:
    parse(
        SMALL.replace("h: {users: [bob]}", "h: {slack_usergroup: S0614TZR7}").replace(
            "{group: g}", "{group: h, approvals: 9}"
        )
    )


def test_people_of_two_groups_are_shared_out_before_a_file_is_refused() -> None:
    parse(SMALL.replace("[{group: g}]", "[{group: g}, {group: h}]"))


@pytest.mark.parametrize(
    "text",
    ["", "\n# nothing\n", "[]", "1", "text", "null", "- a", "\x00", "\ufeff", "%YAML 9.9", "{", "!!binary x"],
)
def test_what_is_no_policy_file_at_all_is_refused(text: str) -> None:
    assert problems_of(text)[0].startswith("policy.yaml:1: ")


BOMBS = {
    "billion laughs": "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a,*a]\n" for n in range(40)),
    "deep lists": "[" * 100_000,
    "deep maps": "{a: " * 50_000,
    "deep blocks": "".join(" " * n + "a:\n" for n in range(400)),
    "too large": "# " + "x" * 300_000,
    "huge number": SMALL.replace("{group: g}", "{group: g, approvals: 1" + "0" * 5_000 + "}"),
    "sexagesimal": SMALL.replace("{group: g}", "{group: g, approvals: 1:1" + ":1" * 50 + "}"),
    "endless float": SMALL.replace("{group: g}", "{group: g, approvals: .inf}"),
    "long expression": SMALL.replace("{group: g}", "{group: g, when: '" + "1+" * 50_000 + "1'}"),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_quickly(text: str) -> None:
    begin = time.perf_counter()
    assert problems_of(text)
    assert time.perf_counter() - begin < 5


@given(st.text(max_size=200))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        parse(text)


@given(st.integers(0, len(WHOLE) - 1), st.characters())
def test_a_single_wrong_character_never_crashes(at: int, character: str) -> None:
    with suppress(PolicyError):
        parse(WHOLE[:at] + character + WHOLE[at + 1 :])


def test_a_file_made_without_text_is_held_to_the_same_rules() -> None:
    value = {
        "version": 1,
        "groups": {"g": {"users": ["alice"]}},
        "policies": [{"name": "p", "match": {"action": ["export"]}, "require": [{"group": "k"}]}],
    }
    with pytest.raises(ValidationError, match="unknown group 'k'"):
        PolicyFile.model_validate(value)


@pytest.mark.parametrize("text", ["1s", "90s", "30m", "4h", "2d", "90d"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    assert parse_duration(duration_text(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "h", "4", "4H", "-4h", "+4h", "04h", "4h ", "4h\n", "1.5h", "٤h", "1w", "4h30m", 4]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


def test_durations_are_shown_in_the_largest_unit() -> None:
    shown = [duration_text(parse_duration(text)) for text in ("90s", "60m", "3600s", "24h", "36h")]
    assert shown == ["90s", "1h", "1h", "1d", "36h"]


CHANGES = {
    "rule": ("[{group: g}]", "[{group: g}, {group: h}]"),
    "when": ("{group: g}", "{group: g, when: 'true'}"),
    "approvals": ("{group: g}", "{group: g, approvals: 2}"),
    "match": ("[export]", "[export, write]"),
    "name": ("name: p", "name: p2"),
    "self-approval": ("    match", "    self_approval: allowed\n    match"),
    "expiry": ("    match", "    expires_after: 23h\n    match"),
    "denial": ("    match", "    deny_if: ['false']\n    match"),
}


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES.keys())
def test_every_change_of_a_policy_changes_its_digest(old: str, new: str) -> None:
    changed = small_policy(SMALL.replace(old, new, 1))
    assert digest_of_policy(changed) != digest_of_policy(small_policy())


SAME = {
    "a member more": ("[alice, bob]", "[alice, bob, carol]"),
    "a comment": ("    match", "    # why\n    match"),
    "quotes": ("name: p", 'name: "p"'),
    "the default, written out": ("    match", "    expires_after: 1440m\n    match"),
}


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME.keys())
def test_what_is_no_change_of_a_policy_keeps_its_digest(old: str, new: str) -> None:
    assert digest_of_policy(small_policy(SMALL.replace(old, new, 1))) == digest_of_policy(small_policy())


def test_the_digest_of_the_file_holds_its_groups_too() -> None:
    file = parse(SMALL)
    assert file.digest == parse(SMALL + "# a comment\n").digest
    assert file.digest != parse(SMALL.replace("[alice, bob]", "[alice, bob, carol]")).digest


def test_the_published_schema_is_the_one_of_the_models() -> None:
    current = json.dumps(policy_json_schema(), indent=2, sort_keys=True) + "\n"
    assert SCHEMA_FILE.read_text(encoding="utf-8") == current, (
        "write the output of policy_json_schema() to docs/"
    )


def test_an_editor_takes_a_whole_file_and_refuses_an_unknown_key() -> None:
    schema = jsonschema.Draft202012Validator(policy_json_schema())
    whole = yaml.safe_load(WHOLE)
    schema.validate(whole)
    schema.validate(
        {**whole, "protected_variables": ["prod_*", {"name": "t", "policies": ["partner-export"]}]}
    )
    wrongs: list[dict[str, object]] = [
        {"polices": []},
        {"protected_connections": ["a name"]},
        {"protected_connections": [1]},
    ]
    for wrong in wrongs:
        assert not schema.is_valid({**whole, **wrong})


def test_an_editor_tells_of_every_key_what_it_says() -> None:
    schema = policy_json_schema()
    objects = [part for part in (schema, *schema["$defs"].values()) if "properties" in part]
    assert len(objects) == len(DESCRIPTIONS)
    for part in objects:
        for key, said in part["properties"].items():
            assert said.get("description", "").endswith("."), f"{part['title']}.{key}"


@pytest.mark.parametrize("model", DESCRIPTIONS, ids=lambda model: model.__name__)
def test_what_a_key_means_where_it_is_left_out_is_said_where_it_may_be(model: type[BaseModel]) -> None:
    assert DESCRIPTIONS[model].keys() == model.model_fields.keys()
    for key, said in DESCRIPTIONS[model].items():
        default = model.model_fields[key].default
        assert ("unless given" in said) is not model.model_fields[key].is_required(), key
        if isinstance(default, timedelta):
            default = duration_text(default)
        if isinstance(default, bool | str):
            assert f"; `{str(default).lower()}` unless given" in said, key
        elif isinstance(default, int):
            assert f"; {default} unless given" in said, key


def test_the_schema_tells_defaults_as_a_file_would() -> None:
    properties = policy_json_schema()["$defs"]["Policy"]["properties"]
    assert (properties["expires_after"]["default"], properties["receipt_valid_for"]["default"]) == (
        "1d",
        "30m",
    )
