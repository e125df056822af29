"""Where the demo keeps its things: all of it under `.demo`, made anew each time."""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from demo.customers import write_customers

CHECKOUT = Path(__file__).resolve().parent.parent

POLICY = """\
version: 1
groups:
  data-stewards: {{users: [alice, bob, engineer]}}   # engineer too: the requester is barred all the same
  security: {{users: [bob]}}
  auditors: {{users: [alice]}}                       # may export the ledger
channels:
  data-approvals: {{kind: slack, conn_id: slack_demo, channel: C0DATA}}
policies:
  - name: customer-export
    match:
      action: [export]
      destination: ["{folder}/outbox/customers/**"]
    deny_if: ["pii.verified == false"]                 # lists of people leave masked, and proven so
    require:
      - {{group: data-stewards, approvals: 1}}
      - {{group: security, approvals: 1, when: "dataset.rows > 100000"}}
    require_reason: on_deny
    expires_after: 4h
    receipt_valid_for: 30m
    notify: [data-approvals]
  - name: export
    match:
      action: [export]
      destination: ["{folder}/outbox/*"]
    require:
      - {{group: data-stewards, approvals: 1}}
    require_reason: on_deny
    expires_after: 4h
    receipt_valid_for: 30m
    notify: [data-approvals]
  - name: warehouse-write
    match: {{action: [write]}}
    require:
      - {{group: data-stewards, approvals: 1}}
protected_connections: [prod_warehouse]              # sealed: only an approved task can read it
gated_operators:                                     # gated in every DAG, whatever its file says
  - {{operator: SQLExecuteQueryOperator, policy: warehouse-write}}
"""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders and files of one demo."""

    root: Path

    @property
    def airflow(self) -> Path:
        return self.root / "airflow"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def outbox(self) -> Path:
        return self.data / "outbox"

    @property
    def policy(self) -> Path:
        return self.root / "policy.yaml"

    @property
    def passwords(self) -> Path:
        return self.root / "passwords.json"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    def staged(self, batch: str) -> Path:
        return self.data / "staged" / f"{batch}.parquet"

    def published(self, batch: str) -> Path:
        return self.outbox / f"{batch}.parquet"

    def masked(self, batch: str) -> Path:
        return self.data / "masked" / f"{batch}.parquet"

    def plan(self, batch: str) -> Path:
        return self.data / "masked" / f"{batch}.parquet.plan.yaml"

    def exported_customers(self, batch: str) -> Path:
        return self.outbox / "customers" / f"{batch}.parquet"


def prepare(users: tuple[str, ...], *, customers: int) -> Places:
    """Lay the folders, a list of so many customers, the policy and a password for each user."""
    places = Places(root=CHECKOUT / ".demo")
    shutil.rmtree(places.root, ignore_errors=True)
    for folder in (places.airflow, places.logs, places.outbox / "customers", places.evidence):
        folder.mkdir(parents=True)
    write_customers(places.data / "source" / "customers.csv", customers)
    places.policy.write_text(POLICY.format(folder=places.data.as_uri()))
    places.passwords.touch(mode=0o600)
    places.passwords.write_text(json.dumps({user: secrets.token_urlsafe(9) for user in users}))
    return places
