"""Every command, its options and the function behind it: one table for both command lines.

Functions are named by `module:name` and imported when they run, so that `verify` needs neither Airflow nor a
database, and Airflow's own command line does not pay for ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Option:
    """One argument of a command, in argparse's words."""

    flags: tuple[str, ...]
    help: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command; `function` takes the parsed arguments and returns an exit code."""

    name: str
    help: str
    function: str
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Group:
    """Commands under one word."""

    name: str
    help: str
    commands: tuple[Command, ...]


_URL = Option(("--url",), "Airflow's API server, without /approvals (APPROVALS_URL; http://localhost:8080)")
_USERNAME = Option(("-u", "--username"), "your Airflow user (APPROVALS_USERNAME); its password is asked for")
_TOKEN = Option(("--token",), "an Airflow API token instead; better in APPROVALS_TOKEN, unseen by `ps`")
_OUTPUT = Option(
    ("-o", "--output"),
    "table for people, json for programs",
    {"choices": ("table", "json"), "default": "table"},
)
_SERVER = (_URL, _USERNAME, _TOKEN, _OUTPUT)
_VARIABLE = Option(("--variable",), "they are variables, not connections", {"action": "store_true"})
_REQUEST = Option(("request",), "the request: its id, or a beginning of it that no other one has")
_REASON = Option(("-r", "--reason"), "why, for the record", {"default": ""})
_YES = Option(("-y", "--yes"), "do not ask whether you mean it", {"action": "store_true"})
_PLACES = (
    Option(("--source",), "URI of what is read"),
    Option(("--destination",), "URI of where it goes"),
    Option(
        ("-p", "--parameter"),
        "NAME=VALUE of the action, VALUE in JSON or a plain word; may be given more than once",
        {"action": "append", "default": [], "metavar": "NAME=VALUE"},
    ),
    Option(
        ("--dataset",),
        "URI of staged data to read and put into the evidence; may be given more than once",
        {"action": "append", "default": [], "metavar": "URI"},
    ),
)
_KEY = Option(
    ("--key",),
    "file with a public key (PEM, or the JSON that `ledger keys` writes); may be given more than once",
    {"action": "append", "default": [], "metavar": "FILE"},
)
_CHECKPOINT = Option(
    ("--checkpoint",),
    "a signed checkpoint kept elsewhere, which the ledger must contain; may be given more than once",
    {"action": "append", "default": [], "metavar": "FILE"},
)
_CONN_ID = Option(
    ("--conn-id",), "Airflow connection of the object store that PATH lies in", {"metavar": "ID"}
)
_FORMAT = Option(
    ("--format",),
    "parquet, csv or jsonl, where the names do not tell",
    {"choices": ("parquet", "csv", "jsonl")},
)
_ENGINE = (
    Option(("--language",), "language of the texts", {"default": "en"}),
    Option(("--model",), "spaCy model, an installed package; nothing is ever downloaded"),
    Option(("--nlp-conf",), "Presidio's own NLP configuration instead", {"metavar": "FILE"}),
    Option(("--recognizers-conf",), "Presidio's own recognizer registry", {"metavar": "FILE"}),
)
_REPORT = Option(("--report",), "write the report to this file too, as JSON", {"metavar": "FILE"})
_CHART = Option(("--chart",), "draw entities per column into this .html or .svg", {"metavar": "FILE"})
_OPERATOR = Option(
    ("--operator",),
    "what stands where a value stood: replace (the default), redact, mask, hash, pseudonym, fake, encrypt; "
    "TYPE=NAME for one entity type; may be given more than once",
    {"action": "append", "default": [], "metavar": "[TYPE=]NAME"},
)
_DOMAIN = Option(
    ("--domain",), "whose key these take; one domain joins across tables", {"default": "default"}
)
_PIN = Option(("--pin",), "refuse the plan unless it has this digest", {"metavar": "SHA256"})
_KEY_FILE = Option(
    ("--key-file",), "base64 of 32 random bytes, or YAML with domain: base64; mode 600", {"metavar": "FILE"}
)
_DATA = "file, folder of parts, sql://CONN_ID/table, sqlite:///file.db#table or postgresql://host/db#table"

COMMANDS: tuple[Command | Group, ...] = (
    Command(
        name="list",
        help="List requests; those that wait for an answer unless told otherwise",
        function="airflow_approvals.cli.requests:list_requests",
        options=(
            Option(
                ("-s", "--status"),
                "pending, approved, denied, ... or all; may be given more than once",
                {"action": "append", "default": []},
            ),
            Option(("--dag-id",), "only of this DAG"),
            Option(("--run-id",), "only of this run"),
            Option(("--task-id",), "only of this task"),
            Option(("--map-index",), "only of this index of a mapped task; -1: not mapped", {"type": int}),
            Option(("--policy",), "only under this policy"),
            Option(("--requester",), "only asked for by this person"),
            Option(("--standing",), "only standing approvals", {"action": "store_true"}),
            Option(("--limit",), "at most so many, newest first", {"type": int, "default": 50}),
            *_SERVER,
        ),
    ),
    Command(
        name="show",
        help="Show all there is to know about one request",
        function="airflow_approvals.cli.requests:show_request",
        options=(
            _REQUEST,
            Option(("--receipt",), "write the receipt bundle to this file", {"metavar": "FILE"}),
            *_SERVER,
        ),
    ),
    Command(
        name="approve",
        help="Show a request, ask, and approve it",
        function="airflow_approvals.cli.answers:approve",
        options=(_REQUEST, _REASON, _YES, *_SERVER),
    ),
    Command(
        name="deny",
        help="Show a request, ask, and deny it",
        function="airflow_approvals.cli.answers:deny",
        options=(_REQUEST, _REASON, _YES, *_SERVER),
    ),
    Command(
        name="ask",
        help="Ask for more context before you answer",
        function="airflow_approvals.cli.answers:ask",
        options=(_REQUEST, Option(("text",), "the question"), *_SERVER),
    ),
    Command(
        name="answer",
        help="Answer a question about your request",
        function="airflow_approvals.cli.answers:answer",
        options=(
            _REQUEST,
            Option(("text",), "the answer"),
            Option(("--question",), "its number; the oldest open one unless given", {"type": int}),
            *_SERVER,
        ),
    ),
    Command(
        name="cancel",
        help="Withdraw a pending request of yours",
        function="airflow_approvals.cli.answers:cancel",
        options=(_REQUEST, _REASON, *_SERVER),
    ),
    Command(
        name="revoke",
        help="Take an approval back before it is used",
        function="airflow_approvals.cli.answers:revoke",
        options=(_REQUEST, _REASON, *_SERVER),
    ),
    Command(
        name="standing",
        help="Ask that an approval shall stand for some days; others decide",
        function="airflow_approvals.cli.answers:standing",
        options=(
            _REQUEST,
            Option(
                ("--days",), "for how long; the policy says how long at most", {"type": int, "required": True}
            ),
            Option(("--source",), "a glob that later sources may fit, such as s3://stage/daily/*/x.parquet"),
            Option(("--destination",), "a glob that later destinations may fit"),
            *_SERVER,
        ),
    ),
    Command(
        name="break-glass",
        help="Approve alone and at once in an emergency; every channel is told",
        function="airflow_approvals.cli.answers:break_glass",
        options=(
            _REQUEST,
            Option(("-r", "--reason"), "why, for those who look at it afterwards", {"required": True}),
            _YES,
            *_SERVER,
        ),
    ),
    Command(
        name="review",
        help="Say that you have looked at an emergency grant afterwards",
        function="airflow_approvals.cli.answers:review",
        options=(_REQUEST, _REASON, *_SERVER),
    ),
    Command(
        name="request",
        help="Ask for an approval yourself",
        function="airflow_approvals.cli.opening:open_request",
        options=(
            Option(
                ("--kind",),
                "export, write, delete, grant, rotate_key or a word of your own",
                {"default": "export"},
            ),
            *_PLACES,
            Option(("-j", "--justification"), "why, for those who decide", {"default": ""}),
            Option(("--policy",), "the policy you expect; another one is an error"),
            Option(("--idempotency-key",), "the same key for the same request, to repeat this safely"),
            Option(("--wait",), "wait for the decision; the exit code tells it", {"action": "store_true"}),
            Option(
                ("--timeout",),
                "seconds to wait at most; then exit code 3",
                {"type": float, "metavar": "SECONDS"},
            ),
            *_SERVER,
        ),
    ),
    Group(
        name="policy",
        help="Check and explain the policy file",
        commands=(
            Command(
                name="check",
                help="Check a policy file without a server",
                function="airflow_approvals.cli.policies:check",
                options=(
                    Option(("file",), "the policy file"),
                    Option(
                        ("--channels",),
                        "also whether every channel's connection or notifier can be used on this machine",
                        {"action": "store_true"},
                    ),
                    _OUTPUT,
                ),
            ),
            Command(
                name="test",
                help="Run the cases written beside a policy file; exit code 1 where one fails",
                function="airflow_approvals.cli.policies:test",
                options=(
                    Option(("file",), "the policy file"),
                    Option(
                        ("--cases",),
                        "the cases; beside policy.yaml that is policy.cases.yaml",
                        {"metavar": "FILE"},
                    ),
                    _OUTPUT,
                ),
            ),
            Command(
                name="diff",
                help="Say what a change of the policy file makes weaker; exit code 1 where it does",
                function="airflow_approvals.cli.policies:diff",
                options=(
                    Option(("old",), "the policy file as it is"),
                    Option(("new",), "the policy file as it would be"),
                    _OUTPUT,
                ),
            ),
            Command(
                name="explain",
                help="Say what the policy would require of an action, or which rule gates each task of a DAG",
                function="airflow_approvals.cli.policies:explain",
                options=(
                    Option(
                        ("dag",),
                        "a DAG: tell what gates each of its tasks, from the metadata database",
                        {"nargs": "?", "metavar": "DAG_ID"},
                    ),
                    Option(("--file",), "this file instead of the server's policy", {"metavar": "FILE"}),
                    Option(("--kind",), "the kind of action", {"default": "export"}),
                    *_PLACES,
                    Option(("--dag-id",), "the DAG that would ask"),
                    Option(
                        ("--requester",),
                        "who would ask; with --file only, may be given more than once",
                        {"action": "append", "default": []},
                    ),
                    *_SERVER,
                ),
            ),
        ),
    ),
    Group(
        name="ledger",
        help="Export the ledger and its keys, and verify it",
        commands=(
            Command(
                name="export",
                help="Write the whole ledger to a file that stands on its own",
                function="airflow_approvals.cli.ledgers:export",
                options=(Option(("file",), "where to write it; - for standard output"), *_SERVER),
            ),
            Command(
                name="keys",
                help="Tell the public keys of receipts and ledger, and write them to a file for --key",
                function="airflow_approvals.cli.ledgers:keys",
                options=(Option(("file",), "where to write them", {"nargs": "?"}), *_SERVER),
            ),
            Command(
                name="verify",
                help="Verify the server's ledger, or a file made by export",
                function="airflow_approvals.cli.ledgers:verify",
                options=(
                    Option(("file",), "an export; the server's ledger unless given", {"nargs": "?"}),
                    _KEY,
                    _CHECKPOINT,
                    Option(
                        ("--witness",),
                        "where heads were published, or a line copied from there: all must agree",
                        {"metavar": "PATH"},
                    ),
                    *_SERVER,
                ),
            ),
        ),
    ),
    Command(
        name="reconcile",
        help="Hold what Marquez says has moved against the approvals of the ledger",
        function="airflow_approvals.cli.reconciling:run",
        options=(
            Option(("--marquez",), "Marquez's API (MARQUEZ_URL; http://localhost:5000)", {"metavar": "URL"}),
            Option(("--since",), "from this day or time on, in UTC unless it says otherwise"),
            Option(("--until",), "up to this one, without it"),
            Option(
                ("--policy",),
                "policy file: the destinations that it names are gated",
                {"metavar": "FILE"},
            ),
            Option(
                ("--destination",),
                "a gated destination instead, as in a policy's match; may be given more than once",
                {"action": "append", "default": [], "metavar": "GLOB"},
            ),
            Option(("--ledger",), "a ledger export; the server's ledger unless given", {"metavar": "FILE"}),
            _KEY,
            *_SERVER,
        ),
    ),
    Command(
        name="evidence",
        help="Write a report of a period that stands on its own, for auditors",
        function="airflow_approvals.cli.evidence:make",
        options=(
            Option(
                ("--since",),
                "from this day or time on, in UTC unless it says otherwise",
                {"required": True, "metavar": "TIME"},
            ),
            Option(("--until",), "up to this one, without it; now unless given", {"metavar": "TIME"}),
            Option(("--out",), "the folder to make", {"required": True, "metavar": "DIR"}),
            _KEY,
            *_SERVER,
        ),
    ),
    Command(
        name="verify",
        help="Verify receipts, a ledger export or an evidence package offline, with the public key alone",
        function="airflow_approvals.cli.ledgers:verify_offline",
        options=(
            Option(
                ("files",),
                "receipt bundles, ledger exports and folders made by `evidence`",
                {"nargs": "+", "metavar": "FILE"},
            ),
            _KEY,
            _CHECKPOINT,
            Option(
                ("--file",),
                "data whose bytes every receipt must approve; may be given more than once",
                {"action": "append", "default": [], "metavar": "DATA", "dest": "data"},
            ),
            _OUTPUT,
        ),
    ),
    Group(
        name="pii",
        help="Find, mask and verify personal data in staged files and tables",
        commands=(
            Command(
                name="scan",
                help="Scan every cell, and tell what is in every column",
                function="airflow_approvals.cli.pii:scan",
                options=(
                    Option(("path",), _DATA),
                    Option(
                        ("--on-pii",),
                        "fail: exit code 8 where there is any",
                        {"choices": ("warn", "fail"), "default": "warn"},
                    ),
                    Option(
                        ("--exact-check",),
                        "hold up to so many cells, from all over, against Presidio's AnalyzerEngine",
                        {"type": int, "metavar": "N"},
                    ),
                    Option(("--workers",), "processes (1)", {"type": int, "metavar": "N", "default": 1}),
                    Option(
                        ("--engine",),
                        "spark: the parts of a folder on Spark, with the same findings",
                        {"choices": ("local", "spark"), "default": "local"},
                    ),
                    _CONN_ID,
                    _FORMAT,
                    *_ENGINE,
                    _REPORT,
                    _CHART,
                    _OUTPUT,
                ),
            ),
            Command(
                name="plan",
                help="Draw up a masking plan from a sample, to review, edit and pin",
                function="airflow_approvals.cli.pii:plan",
                options=(
                    Option(("path",), _DATA),
                    Option(("--plan",), "write the plan to this file, as YAML", {"metavar": "FILE"}),
                    Option(("--overwrite",), "replace a plan that is there", {"action": "store_true"}),
                    _OPERATOR,
                    _DOMAIN,
                    _CONN_ID,
                    _FORMAT,
                    *_ENGINE,
                    _OUTPUT,
                ),
            ),
            Command(
                name="mask",
                help="Mask into another file, folder or table, and verify that nothing is left",
                function="airflow_approvals.cli.pii:mask",
                options=(
                    Option(("path",), _DATA),
                    Option(("destination",), "the same kinds of places; it appears complete or not at all"),
                    Option(("--plan",), "the masking plan; drawn up anew unless given", {"metavar": "FILE"}),
                    _PIN,
                    _KEY_FILE,
                    _OPERATOR,
                    _DOMAIN,
                    Option(("--overwrite",), "replace what is there", {"action": "store_true"}),
                    _CONN_ID,
                    _FORMAT,
                    *_ENGINE,
                    _REPORT,
                    _CHART,
                    _OUTPUT,
                ),
            ),
            Command(
                name="verify",
                help="Hold a masked dataset against its source: no value is left, nothing else has changed",
                function="airflow_approvals.cli.pii:verify",
                options=(
                    Option(("source",), _DATA),
                    Option(("masked",), "what was made of it"),
                    Option(("--plan",), "the masking plan that it was masked by", {"metavar": "FILE"}),
                    _PIN,
                    _KEY_FILE,
                    _CONN_ID,
                    _FORMAT,
                    *_ENGINE,
                    _REPORT,
                    _OUTPUT,
                ),
            ),
        ),
    ),
    Command(
        name="seal",
        help="Seal connections or variables, so that only approved tasks can read them",
        function="airflow_approvals.cli.sealing:seal",
        options=(
            Option(("names",), "their ids", {"nargs": "*", "metavar": "NAME"}),
            _VARIABLE,
            Option(("--protected",), "all that the policy file protects", {"action": "store_true"}),
        ),
    ),
    Command(
        name="unseal",
        help="Put sealed connections or variables back into the open",
        function="airflow_approvals.cli.sealing:unseal",
        options=(Option(("names",), "their ids", {"nargs": "+", "metavar": "NAME"}), _VARIABLE),
    ),
    Command(
        name="rotate-seal",
        help="Seal everything that is sealed with a new key, and forget the old one",
        function="airflow_approvals.cli.sealing:rotate",
    ),
    Group(
        name="identity",
        help="Link accounts elsewhere (Slack) to your login",
        commands=(
            Command(
                name="list",
                help="List the accounts that vote as you",
                function="airflow_approvals.cli.identities:show",
                options=_SERVER,
            ),
            Command(
                name="link",
                help="Link the account that was told a code",
                function="airflow_approvals.cli.identities:link",
                options=(Option(("code",), "the code, as the account was told it"), _YES, *_SERVER),
            ),
            Command(
                name="unlink",
                help="End the link of an account",
                function="airflow_approvals.cli.identities:unlink",
                options=(Option(("account",), "as `identity list` names it: slack:T0123/U0456"), *_SERVER),
            ),
        ),
    ),
    Command(
        name="slack-listen",
        help="Take clicks from Slack in Socket Mode; runs beside the API server until it is stopped",
        function="airflow_approvals.cli.listening:listen",
    ),
    Command(
        name="doctor",
        help="Check this installation: configuration, database, policy, keys, seals, gates, server, clock",
        function="airflow_approvals.cli.doctor:examine",
        options=(_URL, _OUTPUT),
    ),
)
