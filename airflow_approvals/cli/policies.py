"""`policy check`, `test`, `diff` and `explain`: is the file sound, and what does it require."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from airflow_approvals.cli.exits import Exit
from airflow_approvals.cli.opening import action_of, evidence_of
from airflow_approvals.cli.output import print_json, print_line
from airflow_approvals.cli.session import connect
from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.identity import person_named
from airflow_approvals.core.model import to_json
from airflow_approvals.core.policy import PolicyFile, parse_policy_file
from airflow_approvals.core.policy_cases import CaseResult, parse_cases, run_cases
from airflow_approvals.core.policy_diff import diff as find_differences
from airflow_approvals.core.policy_explain import explain as explain_offline


def check(args: Namespace) -> int:
    """Name every problem of a policy file with its line, or say that it is sound."""
    try:
        policy_file = _read(args.file)
        if args.channels:
            _check_channels(policy_file, args.file)
    except PolicyError as error:
        if args.output != "json":
            raise
        print_json({"valid": False, "problems": str(error).splitlines()})
        return Exit.ERROR
    notices = policy_file.notices()
    if args.output == "json":
        names = [policy.name for policy in policy_file.policies]
        print_json({"valid": True, "digest": policy_file.digest, "policies": names, "notices": list(notices)})
        return Exit.OK
    for notice in notices:
        print_line(f"note: {notice}", style="yellow")
    count = len(policy_file.policies)
    policies = "1 policy" if count == 1 else f"{count} policies"
    print_line(f"{args.file}: sound, {policies}, digest {policy_file.digest[:16]}")
    return Exit.OK


def test(args: Namespace) -> int:
    """Play the cases of a policy file, and say which do not come out as written."""
    policy_file, path = _read(args.file), Path(args.file)
    cases_path = Path(args.cases) if args.cases else path.with_name(f"{path.stem}.cases{path.suffix}")
    if not (args.cases or cases_path.exists()):
        raise PolicyError(f"{path}: there is no {cases_path.name} beside it; write cases, or give --cases")
    cases = parse_cases(_text(str(cases_path)), name=str(cases_path))
    results = run_cases(policy_file, cases.cases)
    failed = [result for result in results if result.differences]
    if args.output == "json":
        print_json({"ok": not failed, "cases": [_case_json(result) for result in results]})
        return Exit.ERROR if failed else Exit.OK
    for result in results:
        print_line(f"{'FAILED' if result.differences else 'passed'}  {result.case.name}")
        for difference in result.differences:
            print_line(f"        {difference}", style="red")
    passed = f"{len(results) - len(failed)} of {len(results)} cases passed"
    print_line(passed, style="bold red" if failed else "bold green")
    return Exit.ERROR if failed else Exit.OK


def diff(args: Namespace) -> int:
    """Say what a change of the policy file makes weaker, what stricter, and what else differs."""
    differences = find_differences(_read(args.old), _read(args.new))
    weaker = any(each.effect == "weaker" for each in differences)
    if args.output == "json":
        print_json({"weaker": weaker, "differences": [to_json(each) for each in differences]})
        return Exit.ERROR if weaker else Exit.OK
    for each in differences:
        style = "red" if each.effect == "weaker" else ""
        print_line(f"{each.effect:<9}{each.where}: {each.told}", style=style)
    if not differences:
        print_line("no difference: the two files demand the same")
    elif not weaker:
        print_line("nothing gets weaker", style="green")
    return Exit.ERROR if weaker else Exit.OK


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


def _check_channels(policy_file: PolicyFile, path: str) -> None:
    from airflow_approvals.channels.checking import channel_problems

    problems = channel_problems(policy_file, _text(path), name=path)
    if problems:
        raise PolicyError("\n".join(problems))


def _case_json(result: CaseResult) -> dict[str, Any]:
    return {
        "name": result.case.name,
        "passed": not result.differences,
        "decision": result.played.decision,
        "policy": result.played.policy,
        "turned_away": list(result.played.turned_away),
        "because": result.played.because,
        "differences": list(result.differences),
    }


def _read(path: str) -> PolicyFile:
    return parse_policy_file(_text(path), name=path)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise PolicyError(f"{path}: not UTF-8; save it as UTF-8") from None
