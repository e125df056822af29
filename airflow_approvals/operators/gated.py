"""`gated(...)`: the same task as before, which asks before it acts.

The task's class is exchanged for a subclass of the same name, so that dependencies, mapping, serialisation
and the UI stay as they are. What is approved is the task as it is rendered: operator, arguments, fields and
the code of functions with what they bring along (`code_digests`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload
from weakref import WeakKeyDictionary

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR
from airflow.sdk.definitions.mappedoperator import MappedOperator, OperatorPartial

from airflow_approvals.core.gated_rules import GateRule
from airflow_approvals.operators.links import ApprovalRequestLink
from airflow_approvals.operators.names import GATE_FIELDS, RESUME

if TYPE_CHECKING:
    from airflow.sdk import Context

Thing = TypeVar("Thing")
GatedClass = Callable[[type[BaseOperator], Collection[str]], type[BaseOperator]]
"""Makes the gated subclass of an operator class with these template fields."""


class Terms(NamedTuple):
    """What a gated task asks with; the templated ones stand on the class as `approvals_...`."""

    own_fields: tuple[str, ...]  # template fields of the task itself
    show: tuple[str, ...]
    on_denied: str
    connections: tuple[str, ...] = ()  # lent beside those that the arguments name
    variables: tuple[str, ...] = ()
    rules: tuple[GateRule, ...] = ()  # of the platform owner; the first that fits the destination counts


class Made(NamedTuple):
    """From what a gated class was made."""

    base: type[BaseOperator]
    fields: Mapping[str, Any]
    terms: Terms


_MADE: WeakKeyDictionary[type, Made] = WeakKeyDictionary()
"""Our own classes: what a class says of itself, any DAG file may say."""


def find_made(cls: type[BaseOperator]) -> Made | None:
    """Return from what `cls` was made, if it is a gated class."""
    return _MADE.get(cls)


@overload
def gated(
    thing: None = None,
    *,
    policy: str | None = None,
    kind: str = "write",
    source: str | XComArg | None = None,
    destination: str | XComArg | None = None,
    source_conn_id: str | None = None,
    pii_report: dict[str, Any] | str | XComArg | None = None,
    parameters: dict[str, Any] | None = None,
    justification: str = "",
    show: Sequence[str] = (),
    on_denied: str = "fail",
    connections: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> Callable[[Thing], Thing]: ...


@overload
def gated(
    thing: Thing,
    *,
    policy: str | None = None,
    kind: str = "write",
    source: str | XComArg | None = None,
    destination: str | XComArg | None = None,
    source_conn_id: str | None = None,
    pii_report: dict[str, Any] | str | XComArg | None = None,
    parameters: dict[str, Any] | None = None,
    justification: str = "",
    show: Sequence[str] = (),
    on_denied: str = "fail",
    connections: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> Thing: ...


def gated(
    thing: Any = None,
    *,
    policy: str | None = None,
    kind: str = "write",
    source: str | XComArg | None = None,
    destination: str | XComArg | None = None,
    source_conn_id: str | None = None,
    pii_report: dict[str, Any] | str | XComArg | None = None,
    parameters: dict[str, Any] | None = None,
    justification: str = "",
    show: Sequence[str] = (),
    on_denied: str = "fail",
    connections: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> Any:
    """Return `thing` so that it asks before it acts, with the same task id, class name and dependencies.

    `thing` is an operator, a mapped one (`.expand`, `.expand_kwargs`), `Operator.partial(...)`, a `@task`
    function or its result. As a decorator it stands above `@task`. With `source`, the dataset is read when
    asking and again right before the task acts; `pii_report` is about exactly that data. `show` names fields
    whose rendered values approvers see, in every channel, so none that holds rows of data; of all others they
    see that they do not change. `connections` and `variables` name protected ones that the task reads by
    itself; those that its arguments call `..._conn_id` are known. Raises `ValueError` or `TypeError` for what
    cannot be gated.
    """
    from airflow_approvals.operators.waiting import check_on_denied

    check_on_denied(on_denied)
    if not kind:
        raise ValueError("kind: expected a word for what the task does, found none")
    if isinstance(parameters, Mapping) and "task" in parameters:
        raise ValueError("parameters: 'task' is where the digests of the task stand; choose another word")
    if source is None and source_conn_id is not None:
        raise ValueError("source_conn_id belongs to a source, and there is none")
    if source is None and pii_report is not None:
        raise ValueError("pii_report is about a source, and there is none")
    for word, names in (("show", show), ("connections", connections), ("variables", variables)):
        if isinstance(names, str):
            raise TypeError(f"{word}: expected a list of names, found one text; write {[names]}")
    fields = {
        "approvals_policy": policy,
        "approvals_kind": kind,
        "approvals_source": source,
        "approvals_destination": destination,
        "approvals_source_conn_id": source_conn_id,
        "approvals_pii_report": pii_report,
        "approvals_parameters": parameters,
        "approvals_justification": justification,
    }

    def gate(task: Any) -> Any:
        def gated_of(cls: type[BaseOperator], own: Collection[str]) -> type[BaseOperator]:
            _check_can_be_gated(cls, own, show)
            terms = Terms(
                own_fields=tuple(own),
                show=tuple(show),
                on_denied=on_denied,
                connections=tuple(connections),
                variables=tuple(variables),
            )
            return gated_class(cls, fields, terms)

        return _gate(task, gated_of)

    return gate if thing is None else gate(thing)


def _gate(thing: Any, gated_class: GatedClass) -> Any:
    if isinstance(thing, XComArg):
        operators = {id(operator): operator for operator, _ in thing.iter_references()}
        if len(operators) != 1 or not hasattr(thing, "operator"):
            raise ValueError("gated: this is made from other tasks' results; gate the task that acts itself")
        _gate(thing.operator, gated_class)
    elif isinstance(thing, BaseOperator):
        exchange_class(thing, gated_class(type(thing), thing.template_fields))
        _depend_on_fields(thing, type(thing))
    elif isinstance(thing, MappedOperator):
        exchange_mapped_class(thing, gated_class(thing.operator_class, thing.template_fields))
        _depend_on_fields(thing, thing.operator_class)
    elif isinstance(thing, OperatorPartial):
        thing.operator_class = gated_class(thing.operator_class, thing.operator_class.template_fields)
        object.__setattr__(thing, "__class__", _depending_on_fields(type(thing)))
    elif _is_task_decorator(thing):
        return _gate_decorator(thing, gated_class(thing.operator_class, thing.operator_class.template_fields))
    else:
        raise TypeError(
            f"gated: expected an operator, a mapped one or a @task, found {type(thing).__name__}; "
            "as a decorator it stands above @task"
        )
    return thing


def _is_task_decorator(thing: Any) -> bool:
    from airflow.sdk.bases.decorator import _TaskDecorator

    return isinstance(thing, _TaskDecorator)


def exchange_class(operator: BaseOperator, cls: type[BaseOperator]) -> None:
    """Make `operator` one of the gated class `cls`."""
    object.__setattr__(operator, "__class__", cls)
    for name, fixed in (("start_from_trigger", False), ("template_fields", cls.template_fields)):
        if name in vars(operator):  # set by the constructor, in front of the class
            object.__setattr__(operator, name, fixed)


def exchange_mapped_class(mapped: MappedOperator, cls: type[BaseOperator]) -> None:
    """Make every task of `mapped` one of the gated class `cls`."""
    mapped.operator_class = cls
    mapped.template_fields = cls.template_fields
    mapped.operator_extra_links = cls.operator_extra_links
    mapped.start_from_trigger = False


def _gate_decorator(decorator: Any, cls: type[BaseOperator]) -> Any:
    """Return a copy of the `@task` that makes gated tasks; the plain one stays what it is."""
    import attrs

    made = attrs.evolve(decorator, operator_class=cls)
    for name in ("is_setup", "is_teardown", "on_failure_fail_dagrun"):
        setattr(made, name, getattr(decorator, name))
    object.__setattr__(made, "__class__", _depending_on_fields(type(made)))
    return made


def _depending_on_fields(cls: Any) -> type:
    """Return a subclass of what can be expanded, whose mapped tasks depend on what their gates read."""

    def depending(name: str) -> Callable[..., Any]:
        def expand(self: Any, *args: Any, **kwargs: Any) -> Any:
            made = getattr(cls, name)(self, *args, **kwargs)
            mapped: Any = getattr(made, "operator", made)
            _depend_on_fields(mapped, mapped.operator_class)
            mapped.start_from_trigger = False  # a partial one can have been told otherwise
            return made

        return expand

    told = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    return type(
        cls.__name__, (cls,), {**told, **{name: depending(name) for name in ("expand", "expand_kwargs")}}
    )


def _depend_on_fields(operator: Any, cls: type[BaseOperator]) -> None:
    for name in GATE_FIELDS:
        XComArg.apply_upstream_relationship(operator, getattr(cls, name))


def gated_class(
    base: type[BaseOperator],
    fields: Mapping[str, Any],
    terms: Terms,
    *,
    rendered: Collection[str] = GATE_FIELDS,
) -> type[BaseOperator]:
    """Return a subclass of `base` that asks first, and is called the same.

    `rendered` are those of `fields` that may hold templates; Airflow shows them, and takes its time for each.
    """

    def execute_gated(self: Any, context: Context) -> Any:
        from airflow_approvals.operators.gated_task import execute

        return execute(self, context, super(cls, self).execute)

    def approvals_resume(self: Any, context: Context, event: dict[str, Any] | None = None) -> Any:
        from airflow_approvals.operators.gated_task import resume

        return resume(self, context, event, super(cls, self).execute)

    def resume_execution(
        self: Any, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        if next_method == RESUME:
            return super(cls, self).resume_execution(next_method, next_kwargs, context)
        from airflow_approvals.operators.gated_task import resume_own

        failed = next_method == TRIGGER_FAIL_REPR
        if failed:  # Airflow's own method only raises then; an operator's could do something else
            go_on = partial(BaseOperator.resume_execution, self, next_method, next_kwargs, context)
        elif next_method == "execute":  # some of Amazon's begin again, which is not to ask again
            go_on = partial(super(cls, self).execute, context, **(next_kwargs or {}))
        else:
            go_on = partial(super(cls, self).resume_execution, next_method, next_kwargs, context)
        return resume_own(self, context, go_on, failed=failed)

    def facets_on(moment: str) -> Callable[..., Any]:
        def told(self: Any, *given: Any) -> Any:
            from airflow_approvals.lineage.tasks import gated as lineage_of

            return lineage_of(self, lambda name: getattr(super(cls, self), name, None), moment, *given)

        return told

    namespace = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        **fields,
        "approvals_terms": terms,
        "template_fields": (*terms.own_fields, *rendered),
        "operator_extra_links": _links(base),
        "start_from_trigger": False,  # it would start in the triggerer, where nobody has been asked
        "execute": execute_gated,
        RESUME: approvals_resume,
        "resume_execution": resume_execution,
        **_rendering(base, frozenset(rendered)),
        "get_openlineage_facets_on_start": facets_on("start"),
        "get_openlineage_facets_on_complete": facets_on("complete"),
        "get_openlineage_facets_on_failure": facets_on("failure"),
    }
    make_class: Any = type(base)  # Airflow's metaclass; no mixin, so that constructors stay as they are
    cls: type[BaseOperator] = make_class(base.__name__, (base,), namespace)
    _MADE[cls] = Made(base=base, fields=fields, terms=terms)
    return cls


def _rendering(base: type[BaseOperator], ours: Collection[str]) -> dict[str, Callable[..., None]]:
    """Return the methods that Airflow renders by.

    What a gate asks with may end like the operator's template files (.sql, .json), and names no such file.
    """

    def resolve_template_files(self: Any) -> None:
        fields = self.template_fields
        object.__setattr__(self, "template_fields", [name for name in fields if name not in ours])
        try:
            base.resolve_template_files(self)
        finally:
            object.__setattr__(self, "template_fields", fields)

    def render(
        self: Any, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: Any
    ) -> None:
        names = tuple(template_fields)
        own, asked = [n for n in names if n not in ours], [n for n in names if n in ours]
        base._do_render_template_fields(self, parent, own, context, jinja_env, seen_oids)  # noqa: SLF001
        extensions, self.template_ext = self.template_ext, ()
        try:
            base._do_render_template_fields(self, parent, asked, context, jinja_env, seen_oids)  # noqa: SLF001
        finally:
            self.template_ext = extensions

    return {"resolve_template_files": resolve_template_files, "_do_render_template_fields": render}


def _check_can_be_gated(base: type[BaseOperator], own_fields: Collection[str], show: Sequence[str]) -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator

    from airflow_approvals.operators.approved import ApprovedOperator
    from airflow_approvals.operators.gate import ApprovalGateOperator

    if find_made(base):
        raise ValueError("gated: this task is gated already; one gate is enough")
    if issubclass(base, (ApprovedOperator, ApprovalGateOperator)):
        raise TypeError(f"gated: {base.__name__} asks by itself; give it the arguments")
    if issubclass(base, EmptyOperator):
        raise TypeError(
            "gated: an EmptyOperator is never run; use ApprovalGateOperator for a gate of its own"
        )
    if unknown := [name for name in show if name not in own_fields]:
        raise ValueError(
            f"gated: show names {', '.join(unknown)}, which {base.__name__} does not render; it renders "
            f"{', '.join(own_fields) or 'nothing'}"
        )


def _links(base: type[BaseOperator]) -> Any:
    links = base.operator_extra_links
    if isinstance(links, property):  # some operators make them per instance
        return property(lambda self: (*links.__get__(self), ApprovalRequestLink()))
    return (*links, ApprovalRequestLink())
