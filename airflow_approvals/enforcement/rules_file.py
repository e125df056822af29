"""The `gated_operators` of the policy file, as the dag processor and the workers read them.

They read this one list only, to be fast; whether the rest of the file is sound, the API server judges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import ref

from airflow_approvals.core.errors import PolicyError
from airflow_approvals.core.gated_rules import GateRule, rules_from
from airflow_approvals.enforcement.facts import RuleBook

KEY = "gated_operators"
MODES = ("auto", "required", "off")

_Stamp = tuple[int, int, int]


class RulesFile:
    """The rules in force where this process parses DAG files; the file is read again when it has changed."""

    def __init__(self, path: Path, mode: str) -> None:
        self._path = path
        self._mode = mode
        self._stamp: _Stamp | None = None
        self._rules = RuleBook(())
        self._dag: ref[Any] | None = None
        self._of_dag = RuleBook(())

    def of_dag(self, dag: Any) -> RuleBook:
        """Return the rules for a task of `dag`: the file is looked at once for all of its tasks."""
        if self._dag is None or self._dag() is not dag:
            self._of_dag = self.current()
            self._dag = ref(dag)
        return self._of_dag

    def current(self) -> RuleBook:
        """Return the rules; raise `PolicyError` where the file must be there and cannot be read."""
        if self._mode not in MODES:
            raise PolicyError(
                f"[approvals] {KEY}: expected one of {', '.join(MODES)}, found something else; correct it"
            )
        if self._mode == "off":
            return RuleBook(())
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._rules = RuleBook(read_rules(self._path.read_text(encoding="utf-8")))
                self._stamp = stamp
        except FileNotFoundError:
            if self._mode == "auto":
                return RuleBook(())
            raise PolicyError(
                f"[approvals] policy_file: {self._path} is not here, and [approvals] {KEY} requires it "
                "wherever DAG files are parsed; put it on the dag processor and on every worker"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(
                f"[approvals] policy_file: {self._path} cannot be read ({type(error).__name__}), so nobody "
                "knows which tasks are gated; make it readable"
            ) from error
        return self._rules


def read_rules(text: str) -> tuple[GateRule, ...]:
    """Return the rules in the text of a policy file; raise `PolicyError` for a broken one."""
    if KEY not in text:
        return ()  # nothing is gated, whatever else is wrong with it
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        value = yaml.load(text, loader)  # noqa: S506  # both are safe loaders
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise PolicyError(
            f"policy file: no sound YAML{where}; run `airflow approvals policy check`"
        ) from None
    if not isinstance(value, dict):
        raise PolicyError("policy file: expected a map of keys; run `airflow approvals policy check`")
    return rules_from(value.get(KEY))
