"""`policy check` and `policy explain`: is the file sound, and what would it require."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.opening import action_of, evidence_of
from airflow_approvals.cli.output import print_json, print_line
from airflow_approvals.cli.session import connect
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import to_json
from airflow_approvals.core.policy import PolicyFile, parse_policy_file
from airflow_approvals.core.policy_explain import explain as explain_offline


def check(args: Namespace) -> int:
    """Name every problem of a policy file with its line, or say that it is sound."""
    policy_file = _read(args.file)
    notices = policy_file.notices()
    if args.output == "json":
        names = [policy.name for policy in policy_file.policies]
        print_json({"valid": True, "digest": policy_file.digest, "policies": names, "notices": list(notices)})
        return Exit.OK
    for notice in notices:
        print_line(f"note: {notice}", style="yellow")
    print_line(f"{args.file}: sound, {len(policy_file.policies)} policies, digest {policy_file.digest[:16]}")
    return Exit.OK


def explain(args: Namespace) -> int:
    """Say which policy covers an action, and whom it would ask; of a DAG, what gates its tasks."""
    if args.dag:
        from airflow_approvals.cli.gates import explain_dag

        return explain_dag(args)
    action, evidence = action_of(args), evidence_of(args)
    if args.file:
        requesters = [person_named(name) for name in args.requester]
        explanation = explain_offline(_read(args.file), action, evidence, requesters, dag_id=args.dag_id)
        body = {**to_json(explanation), "sentences": list(explanation.sentences)}
    else:
        with connect(args) as client:
            body = client.explain_policy(action, evidence=evidence, dag_id=args.dag_id)
    if args.output == "json":
        print_json(body)
    else:
        for sentence in body["sentences"]:
            print_line(sentence)
    return Exit.OK


def _read(path: str) -> PolicyFile:
    return parse_policy_file(Path(path).read_text(encoding="utf-8"), name=path)
