"""The JSON Schema of the policy file, by which editors check it and say what each key means."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from airflow_approvals.core.policy import (
    BreakGlass,
    Escalation,
    Group,
    Match,
    Policy,
    PolicyFile,
    Rule,
    Standing,
)
from airflow_approvals.core.policy_channels import (
    EmailChannel,
    NotifierChannel,
    SlackChannel,
    TeamsChannel,
    WebhookChannel,
)
from airflow_approvals.core.policy_gates import GatedOperator, Protected
from airflow_approvals.core.policy_words import duration_text

_URIS = "`*` is any characters within one segment, `**` any number of segments"
_TIME = "as `90s`, `30m`, `4h` or `2d`"

DESCRIPTIONS: Mapping[type[BaseModel], Mapping[str, str]] = {
    PolicyFile: {
        "version": "The version of the format: 1.",
        "groups": "People, by the name of their group; `admins` and `auditors` have a meaning of their own.",
        "policies": "The policies, in the order in which they are tried; what none covers is refused.",
        "channels": "Where people are told, by the name that `notify` uses; nowhere unless given.",
        "gated_operators": "Tasks that ask although their DAG does not say so, by the first rule that fits; "
        "none unless given.",
        "protected_connections": "Secrets for approved tasks alone: ids of connections, where `*` is any "
        "characters; none unless given.",
        "protected_variables": "Secrets for approved tasks alone: names of variables, where `*` is any "
        "characters; none unless given.",
    },
    Group: {
        "users": "Names of Airflow users; case makes no other person; none unless given.",
        "slack_usergroup": "The id of a Slack user group, whose members with a linked account are in the "
        "group too; none unless given.",
    },
    Policy: {
        "name": "How DAGs, receipts and reports call it.",
        "match": "Which actions it covers; the first policy that covers an action applies.",
        "require": "Rules, each met by different people; all must be met.",
        "deny_if": "CEL expressions; where one holds, the action is refused before anybody is asked; none "
        "unless given.",
        "self_approval": "Whether who asks may approve; the receipt says so; `never` unless given.",
        "require_reason": "When an answer needs a reason: `never`, `on_deny` or `always`; `on_deny` unless "
        "given.",
        "expires_after": f"For how long it waits, {_TIME}; then the task fails; `1d` unless given.",
        "receipt_valid_for": f"For how long an approval can be used, {_TIME}; `30m` unless given.",
        "channels": "Where answers are taken: `page` (wherever an Airflow login stands behind the answer), "
        "`cli`, `api`, `slack`; everywhere unless given.",
        "high_risk": "Whether whoever approves is asked once more; `false` unless given.",
        "notify": "The channels that are asked, by their names in `channels`; none unless given.",
        "remind_every": f"How often they are told again, {_TIME}; never unless given.",
        "escalate": "Whom to tell when a request is still open after a while; nobody unless given.",
        "standing": "Standing approvals: one answers later runs of the same action; none unless given.",
        "break_glass": "Break glass: who may grant alone in an emergency; nobody unless given.",
        "slack_identity": "Which Slack accounts are somebody: those that their owner has linked (`link`), "
        "or by a confirmed e-mail address too (`link_or_email`); `link` unless given.",
        "reasons_in_lineage": "Whether what people wrote may stand in the lineage backend; `false` unless "
        "given.",
    },
    Match: {
        "action": "Kinds of action: `export`, `write`, `delete`, `grant`, `rotate_key`, `decrypt`, `answer` "
        "or a word of your own; `*` is any; any unless given.",
        "destination": f"URIs of which one must fit whole; {_URIS}; any unless given.",
        "source": f"URIs of which one must fit whole; {_URIS}; any unless given.",
        "dag_id": "Ids of DAGs, where `*` is any characters; any DAG unless given.",
    },
    Rule: {
        "group": "The group whose members approve.",
        "approvals": "How many of its members must approve; 1 unless given.",
        "when": "A CEL expression; the rule applies where it holds or cannot be evaluated, always unless "
        "given.",
    },
    Escalation: {
        "after": f"For how long a request has been open by then, {_TIME}.",
        "to": "The group that is told.",
        "notify": "Channels that are asked from then on too; none unless given.",
    },
    Standing: {
        "max_days": "For how many days an approval may stand at most, 1 to 365.",
        "void_on": "What ends it when it has drifted from what was approved: `schema`, `mask_policy`, "
        "`residual_pii`, `entities`, or a count like `rows > 1.2x`, `bytes < 0.5x`, `files > 2x`.",
    },
    BreakGlass: {
        "group": "The group of which one person, who did not ask, may grant an open request alone and at "
        "once, with a reason.",
    },
    SlackChannel: {
        "kind": "`slack`: people answer there, by button.",
        "conn_id": "The Airflow connection of the Slack workspace.",
        "channel": "The id of the Slack channel, like `C0123456`.",
    },
    TeamsChannel: {
        "kind": "`teams`: people answer on the page, by link.",
        "conn_id": "The Airflow connection whose password is the webhook's address.",
        "host": "The host of that address; one of Microsoft's unless given.",
    },
    EmailChannel: {
        "kind": "`email`: people answer on the page, by link.",
        "conn_id": "The Airflow connection of the mail server, with `from_email`.",
        "to": "The addresses, without names beside them.",
    },
    WebhookChannel: {
        "kind": "`webhook`: every change is a signed event for a program.",
        "conn_id": "The Airflow connection with the program's address and the secret.",
    },
    NotifierChannel: {
        "kind": "`notifier`: notices without buttons.",
        "conn_id": "An Airflow connection that the notifier uses, for checks to look for; none unless given.",
        "notifier": "The class path of any Airflow notifier.",
        "arguments": "What the notifier is made with; templates may use `approval`; nothing unless given.",
    },
    GatedOperator: {
        "policy": "The policy that must cover the action; another one that does is an error.",
        "operator": "A class, by name or dotted path; classes made from it too; any unless given.",
        "dag_id": "Ids of DAGs, where `*` is any characters; any DAG unless given.",
        "dag_tags": "Tags of which the DAG must have one; any DAG unless given.",
        "task_id": "Ids of tasks, where `*` is any characters; any task unless given.",
        "conn_id": "Connections, held against all arguments that end in `conn_id`; any unless given.",
        "destination": "A template of where the task writes, rendered with `task` when it runs; none unless "
        "given.",
        "to": f"URIs of which the rendered destination must fit one, or the task is not gated; {_URIS}; any "
        "unless given.",
        "kind": "The kind of action that the policy matches; `write` unless given.",
        "show": "Fields of the task whose rendered values approvers see; none unless given.",
        "connections": "Connections that are lent to the approved task beside those that its arguments "
        "name; none unless given.",
        "variables": "Variables that are lent to the approved task; none unless given.",
    },
    Protected: {
        "name": "The id, where `*` is any characters.",
        "policies": "The policies under which alone it is lent; any unless given.",
    },
}
"""What each key says, in a sentence, with what it means where it is left out."""


def policy_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the policy file, for editors."""
    schema = PolicyFile.model_json_schema()
    parts = {**schema["$defs"], PolicyFile.__name__: schema}
    for model, told in DESCRIPTIONS.items():
        properties = parts[model.__name__]["properties"]
        for key, sentence in told.items():
            properties[key]["description"] = sentence
            default = model.model_fields[key].default
            if isinstance(default, timedelta):  # as a file says it, not as ISO 8601 does
                properties[key]["default"] = duration_text(default)
    for key in ("protected_connections", "protected_variables"):
        name = {"pattern": parts[Protected.__name__]["properties"]["name"]["pattern"], "type": "string"}
        schema["properties"][key]["items"] = {"anyOf": [name, schema["properties"][key]["items"]]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "airflow-approvals policy file",
    }
