"""What Airflow asks a provider about itself: modules, links, tables, commands and options.

The plugin is not in here: it is registered through its own entry point, and would be dropped as a duplicate
if Airflow found it twice. Airflow knows `db-managers` and `cli` from 3.2.0 on; 3.1 passes over them.
"""

from __future__ import annotations

from typing import Any

_NAME = "Approvals"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, as Airflow's provider_info.schema.json wants it."""
    return {
        "package-name": "airflow-approvals",
        "name": _NAME,
        "description": "Nothing leaves a DAG until somebody else has approved exactly those bytes.",
        "integrations": [{"integration-name": _NAME, "tags": ["software"]}],
        "operators": [
            _modules(
                "airflow_approvals.operators.gate",
                "airflow_approvals.operators.export",
                "airflow_approvals.operators.sql",
                "airflow_approvals.operators.pii",
                "airflow_approvals.operators.pii_decrypt",
            )
        ],
        "sensors": [_modules("airflow_approvals.sensors.approval")],
        "triggers": [_modules("airflow_approvals.triggers.approval")],
        "task-decorators": [{"class-name": "airflow_approvals.operators.pii_task.pii_task", "name": "pii"}],
        "hooks": [_modules("airflow_approvals.hooks.approvals")],
        "extra-links": ["airflow_approvals.operators.links.ApprovalRequestLink"],
        "db-managers": ["airflow_approvals.store.manager.ApprovalsDBManager"],
        "cli": ["airflow_approvals.cli.definition.get_approvals_cli_commands"],
        "config": {
            "approvals": {
                "description": "Approvals in front of everything that writes data out of a DAG.",
                "options": _options(),
            }
        },
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": _NAME, "python-modules": list(names)}


def _options() -> dict[str, dict[str, Any]]:
    """Return the options of `[approvals]`, by the names that `settings.Settings` has for them."""
    return {
        "policy_file": _option(
            "The policy file, read by the API server, and for its gated_operators wherever DAG files are "
            "parsed. Empty: approvals/policy.yaml under AIRFLOW_HOME.",
            example="/etc/airflow/approvals.yaml",
        ),
        "gated_operators": _option(
            "Where DAG files are parsed (dag processor, workers): auto gates by the policy file where there "
            "is one, required loads no DAG without it, off gates nothing.",
            default="auto",
            example="required",
        ),
        "govern_hitl": _option(
            "Whether answers to Airflow's own Human-in-the-loop tasks count as votes under the policy file.",
            type_="boolean",
            default="False",
        ),
        "base_url": _option(
            "Where people reach Airflow's API server, without /approvals; links lead there. "
            "Empty: [api] base_url, or else http://localhost:8080.",
            example="https://airflow.example.com",
        ),
        "service_url": _option(
            "Where workers and the triggerer reach it. Empty: [core] execution_api_server_url without its "
            "/execution, or else base_url.",
            example="http://airflow-api-server:8080",
        ),
        "signing_key": _option(
            "Signer URI of the key that signs receipts and checkpoints (a file, a KMS, a Vault or an HSM, as "
            "securesystemslib knows them). Empty: a key file under AIRFLOW_HOME, made at the first start.",
            example="awskms:alias/approvals",
        ),
        "sealing_keys": _option(
            "File with the keys of sealed connections and variables; every API server needs the same. Empty: "
            "approvals/keys/sealing_keys.json under AIRFLOW_HOME, made when the first secret is sealed.",
            example="/etc/airflow/keys/sealing_keys.json",
        ),
        "public_key_file": _option(
            "Public key of a signer that cannot tell it by itself, as JSON of securesystemslib.",
            example="/etc/airflow/approvals.pub.json",
        ),
        "worker_secret": _option(
            "The key of the workers' short-lived tokens is derived from it; API server, workers and "
            "triggerer must agree. Empty: [api] secret_key.",
            sensitive=True,
        ),
        "ledger_origin": _option(
            "The name of this ledger in its signed checkpoints; one name for one installation, for good.",
            default="airflow-approvals",
            example="airflow.example.com/approvals",
        ),
        "witness": _option(
            "Where signed heads of the ledger are published, one place or several: a folder, or any address "
            "of Airflow's ObjectStoragePath, where each is a file that is written once; "
            "slack://CONN_ID/CHANNEL; the word lineage. Best in an account that whoever owns the database "
            "cannot change. Empty: nowhere.",
            example="s3://witness_conn@audit-bucket/approvals slack://slack_approvals/C0123456 lineage",
        ),
        "witness_interval": _option(
            "Seconds between two publications of the ledger's head; none is made while nothing is new.",
            type_="float",
            default="300",
        ),
        "http_timeout": _option(
            "Seconds that one call of a worker to the approvals service may take.",
            type_="float",
            default="30",
        ),
        "due_interval": _option(
            "Seconds between two looks of the API server for requests and approvals that ran out.",
            type_="float",
            default="5",
        ),
        "lineage_url": _option(
            "Where a request's page leads to for its lineage, with {dag_id}, {task_id} and {run_id} in it. "
            "Empty: nowhere.",
            example="https://marquez.example.com/lineage/job/default/{dag_id}.{task_id}",
        ),
    }


def _option(
    description: str,
    *,
    type_: str = "string",
    default: str = "",
    example: str | None = None,
    sensitive: bool = False,
) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": type_,
        "default": default,
        "example": example,
        "sensitive": sensitive,
    }
