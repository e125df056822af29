"""The policy file: what it may say, what is wrong with it and where, and which policy covers an action."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from airflow_approvals.core.assignment import assign
from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import InvalidRequestError, NoPolicyError, PolicyError
from airflow_approvals.core.model import Action, Channel, Person
from airflow_approvals.core.policy_channels import KINDS, AnyChannel, path_in_file
from airflow_approvals.core.policy_gates import GatedOperator, ProtectedNames, policies_named
from airflow_approvals.core.policy_match import covers, covers_name, places_of
from airflow_approvals.core.policy_words import (
    KIND,
    Duration,
    Expression,
    Kind,
    Name,
    NameGlob,
    UriGlob,
    User,
    VoidWord,
)
from airflow_approvals.core.policy_yaml import Document, Path, Problem, read_yaml

ADMINS = "admins"
"""The optional group whose members may cancel and revoke any request."""

_CROSS_CHECK = "cross_check"

_NON_EMPTY = Field(min_length=1)
_PartType = TypeVar("_PartType", bound=BaseModel)


class _Part(BaseModel):
    """A part of the file: frozen, and a key that is not known is an error, not a silent wish."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Group(_Part):
    """People who may approve together: named here, or in a Slack user group, or both."""

    users: tuple[User, ...] = ()
    slack_usergroup: Annotated[StrictStr, Field(pattern=r"^[A-Z0-9]{2,32}$")] | None = None
    _linked: tuple[Person, ...] = PrivateAttr(default=())  # no part of the file, nor of its digest

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody in it now, each once: named here, or in the user group with a linked account."""
        return tuple(dict.fromkeys([*map(Person, self.users), *self._linked]))

    def with_linked(self, people: Iterable[Person]) -> Group:
        """Return this group with those whom its user group brings."""
        filled = self.model_copy()
        filled._linked = tuple(people)  # noqa: SLF001  # a copy of its own kind
        return filled

    @field_validator("users")
    @classmethod
    def _each_once(cls, users: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({user for user in users if users.count(user) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is here twice (case and width make no other person)")
        return users

    @model_validator(mode="after")
    def _somebody(self) -> Group:
        if not self.users and self.slack_usergroup is None:
            raise ValueError("an empty group; name users or a slack_usergroup")
        return self


class Match(_Part):
    """Which actions a policy covers: every key that is here must fit, and a list fits if one of it does."""

    action: Annotated[tuple[Kind, ...], _NON_EMPTY] | None = None
    destination: Annotated[tuple[UriGlob, ...], _NON_EMPTY] | None = None
    source: Annotated[tuple[UriGlob, ...], _NON_EMPTY] | None = None
    dag_id: Annotated[tuple[NameGlob, ...], _NON_EMPTY] | None = None

    @model_validator(mode="after")
    def _something(self) -> Match:
        if not self.model_fields_set or all(value is None for _, value in self):
            raise ValueError("an empty match; name action, destination, source or dag_id")
        return self

    def find_mismatch(self, action: Action, *, dag_id: str | None) -> str | None:
        """Return why this does not cover `action`, in words; None when it does.

        Raises `InvalidRequestError` for an action whose kind or places can be read in two ways.
        """
        if self.action is not None and not {action.kind, "*"} & set(self.action):
            return f"the action is {action.kind}, it covers {', '.join(self.action)}"
        for word, globs, uri in (
            ("destination", self.destination, action.destination),
            ("source", self.source, action.source),
        ):
            if globs is not None and not (uri is not None and covers(globs, uri)):
                return f"the {word} is {uri or 'not named'}, it covers {', '.join(globs)}"
        if self.dag_id is not None and not any(covers_name(glob, dag_id or "") for glob in self.dag_id):
            return f"the DAG is {dag_id or 'not known'}, it covers {', '.join(self.dag_id)}"
        return None


class Rule(_Part):
    """So many approvals by members of one group, always or `when` an expression holds."""

    group: Name
    approvals: Annotated[StrictInt, Field(ge=1, le=20)] = 1
    when: Expression | None = None


class Escalation(_Part):
    """Whom to tell when a request is still open after a while, and where else to ask from then on."""

    after: Duration
    to: Name
    notify: tuple[Name, ...] = ()


class Standing(_Part):
    """For how long one approval may answer recurring actions, and which drift voids it."""

    max_days: Annotated[StrictInt, Field(ge=1, le=365)]
    void_on: Annotated[tuple[VoidWord, ...], _NON_EMPTY]


class BreakGlass(_Part):
    """Who may open the gate alone in an emergency."""

    group: Name


class Policy(_Part):
    """What one kind of action needs."""

    name: Name
    match: Match
    require: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=20)]
    deny_if: tuple[Expression, ...] = ()
    self_approval: Literal["never", "allowed"] = "never"
    require_reason: Literal["never", "on_deny", "always"] = "on_deny"
    high_risk: StrictBool = False  # where a click approves, it is asked once more
    slack_identity: Literal["link", "link_or_email"] = "link"
    reasons_in_lineage: StrictBool = False  # what people wrote may then stand in a lineage backend
    expires_after: Duration = timedelta(hours=24)
    receipt_valid_for: Duration = timedelta(minutes=30)
    channels: Annotated[tuple[Channel, ...], _NON_EMPTY] | None = None
    remind_every: Duration | None = None
    escalate: Escalation | None = None
    notify: tuple[Name, ...] = ()
    standing: Standing | None = None
    break_glass: BreakGlass | None = None

    @property
    def approver_groups(self) -> tuple[str, ...]:
        """The groups that this policy asks, each once, in the order of its rules."""
        return tuple(dict.fromkeys(rule.group for rule in self.require))


class PolicyFile(_Part):
    """The whole file; groups, channels and policies are known to fit together."""

    version: Literal[1]
    groups: Annotated[dict[Name, Group], _NON_EMPTY]
    channels: dict[Name, AnyChannel] = {}
    policies: Annotated[tuple[Policy, ...], Field(min_length=1, max_length=500)]
    protected_connections: ProtectedNames = ()
    protected_variables: ProtectedNames = ()
    gated_operators: tuple[GatedOperator, ...] = ()

    @field_validator("version", mode="before")
    @classmethod
    def _is_a_number(cls, version: object) -> object:
        if isinstance(version, bool):  # true == 1 in Python
            raise ValueError("expected 1")  # noqa: TRY004  # pydantic turns ValueError into a problem
        return version

    @model_validator(mode="after")
    def _fits_together(self) -> PolicyFile:
        problems = [reason for _, reason in _cross_problems(self.model_dump(mode="json"))]
        if problems:
            raise PydanticCustomError(_CROSS_CHECK, "{reasons}", {"reasons": "; ".join(problems)})
        return self

    @property
    def digest(self) -> str:
        """The digest of everything this file says, however it is laid out."""
        return digest_of(self.model_dump(mode="json"))

    def find_policy(self, name: str) -> Policy | None:
        """Return the policy of that name; None when there is none."""
        return next((policy for policy in self.policies if policy.name == name), None)

    def match(self, action: Action, *, dag_id: str | None) -> Policy:
        """Return the first policy that covers `action`; raise `NoPolicyError` when none does."""
        tried: list[str] = []
        for policy, mismatch in self.mismatches(action, dag_id=dag_id):
            if mismatch is None:
                return policy
            tried.append(policy.name)
        raise NoPolicyError(
            f"no policy covers the action {action.kind} to {action.destination or 'no destination'}; tried "
            f"{', '.join(tried)}; ask the platform owner for a policy, or move the data where one allows it"
        )

    def mismatches(self, action: Action, *, dag_id: str | None) -> Iterator[tuple[Policy, str | None]]:
        """Yield each policy in order with why it does not cover `action`, up to the one that does (None)."""
        if not KIND.fullmatch(action.kind):
            raise InvalidRequestError(
                "the kind of an action is one word of a-z, 0-9 and _, like export or rotate_key"
            )
        for uri in (action.source, action.destination):
            if uri is not None:
                places_of(uri)  # refused here, or a policy without globs would cover what cannot be read
        for policy in self.policies:
            mismatch = policy.match.find_mismatch(action, dag_id=dag_id)
            yield policy, mismatch
            if mismatch is None:
                return

    def with_linked(self, people: Mapping[str, Iterable[Person]]) -> PolicyFile:
        """Return this file with the members of Slack's user groups, by the id of those; its digest stays."""
        groups = {
            name: group.with_linked(people.get(group.slack_usergroup or "", ()))
            for name, group in self.groups.items()
        }
        return self.model_copy(update={"groups": groups})

    def notices(self) -> tuple[str, ...]:
        """Return one line for every key that nothing can come of as the file stands."""
        if any(channel.kind == "slack" for channel in self.channels.values()):
            return ()
        return tuple(
            f"groups.{name}.slack_usergroup: no channel of kind slack is named that could tell who is in it"
            for name, group in self.groups.items()
            if group.slack_usergroup
        )


def check_asserted(policy: Policy, asserted: str | None) -> None:
    """Raise `NoPolicyError` when a DAG names another policy than the one that covers its action."""
    if asserted is not None and asserted != policy.name:
        raise NoPolicyError(
            f"the DAG expects policy {asserted!r}, the policy that covers this action is {policy.name!r}; "
            "name that one or none: which policy applies is decided by the policy file alone"
        )


def digest_of_policy(policy: Policy) -> str:
    """Return the digest of what `policy` demands; who is in its groups is recorded with each vote instead."""
    return digest_of(policy.model_dump(mode="json"))


def parse_policy_file(text: str, *, name: str) -> PolicyFile:
    """Return the policy file that `text` holds; raise one `PolicyError` with all problems and lines."""
    document = read_yaml(text)
    problems = list(document.problems)
    if document.lines:
        problems += _problems_of(document)
    if problems:
        lines = [f"{name}:{line}: {reason}" for line, reason in sorted(set(problems))]
        raise PolicyError("\n".join(lines))
    return PolicyFile.model_validate(document.value)


def _problems_of(document: Document) -> list[Problem]:
    try:
        PolicyFile.model_validate(document.value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        broken = {tuple(detail["loc"])[:depth] for detail in details for depth in range(len(detail["loc"]))}
        found = [
            (path_in_file(tuple(detail["loc"]), detail["type"]), _in_words(detail["type"], detail["msg"]))
            for detail in details
            # pydantic counts sound items only: a list whose items are broken is not also too short
            if detail["type"] != _CROSS_CHECK
            and not (detail["type"] == "too_short" and detail["loc"] in broken)
        ]
        found += _cross_problems(document.value)
        return [Problem(document.line_of(path), f"{_dotted(path)}{reason}") for path, reason in found]
    return []


def _cross_problems(value: Any) -> Iterator[tuple[Path, str]]:
    """Yield where names lead nowhere, and where nobody could ever say yes.

    `value` is what the file says, sound or not: whatever is wrong with a part, its names are checked too.
    """
    file = _as_dict(value)
    groups = {name: _sound(Group, part) for name, part in _as_dict(file.get("groups")).items()}
    names: set[str] = set()
    for at, part in enumerate(_as_list(file.get("policies"))):
        policy = _as_dict(part)
        name = policy.get("name")
        if isinstance(name, str):
            if name in names:
                yield ("policies", at, "name"), f"a policy named {name!r} is here twice; rename one"
            names.add(name)
        for path, kind, used, known in _names_in(policy, groups, _as_dict(file.get("channels"))):
            if isinstance(used, str) and used not in known:
                reason = f"unknown {kind} {used!r}; known are {', '.join(sorted(known)) or 'none'}"
                yield ("policies", at, *path), reason
        for path, reason in _unsatisfiable(policy, groups):
            yield ("policies", at, *path), reason
    for path, asserted in policies_named(file):
        if asserted not in names:
            yield path, f"unknown policy {asserted!r}"


def _names_in(
    policy: dict[str, Any], groups: Collection[str], channels: Collection[str]
) -> Iterator[tuple[Path, str, Any, Collection[str]]]:
    for position, rule in enumerate(_as_list(policy.get("require"))):
        yield ("require", position, "group"), "group", _as_dict(rule).get("group"), groups
    yield ("escalate", "to"), "group", _as_dict(policy.get("escalate")).get("to"), groups
    yield ("break_glass", "group"), "group", _as_dict(policy.get("break_glass")).get("group"), groups
    for position, channel in enumerate(_as_list(policy.get("notify"))):
        yield ("notify", position), "channel", channel, channels
    for position, channel in enumerate(_as_list(_as_dict(policy.get("escalate")).get("notify"))):
        yield ("escalate", "notify", position), "channel", channel, channels


def _unsatisfiable(policy: dict[str, Any], groups: Mapping[str, Group | None]) -> Iterator[tuple[Path, str]]:
    """Yield the rules that nobody can meet, alone or together with the others (by different people).

    Every `when` counts as true. A group with a Slack user group, or one that is wrong in itself, has an
    unknown size: it is never too small.
    """
    places: list[tuple[str, ...]] = []
    for position, part in enumerate(_as_list(policy.get("require"))):
        rule = _sound(Rule, part)
        group = groups.get(rule.group) if rule else None
        if rule is None or group is None or group.slack_usergroup is not None:
            continue
        if len(group.users) < rule.approvals:
            reason = f"{rule.approvals} approvals by {rule.group!r}, which has {len(group.users)} members"
            yield ("require", position), f"a rule that nobody can meet: {reason}"
            return
        places += [group.users] * rule.approvals
    can_be_filled = sum(person is not None for person in assign(places))
    if can_be_filled < len(places):
        reason = f"up to {len(places)} different people are needed, the groups have {can_be_filled}"
        yield ("require",), f"rules that nobody can meet together: {reason}"


def _sound(model: type[_PartType], part: Any) -> _PartType | None:
    try:
        return model.model_validate(part)
    except ValidationError:
        return None


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


_PLAIN_WORDS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "too_short": "expected at least one",
    "tuple_type": "expected a list",
    "dict_type": "expected a map of names",
    "model_type": "expected a map of keys",
    "model_attributes_type": "expected a map of keys",
    "string_type": "expected a string; put it in quotes",
    "int_type": "expected a whole number",
    "union_tag_invalid": f"expected one of {', '.join(KINDS)}",
    "union_tag_not_found": "is missing",
}


def _in_words(kind: str, message: str) -> str:
    return _PLAIN_WORDS.get(kind, message.removeprefix("Value error, "))


def _dotted(path: Path) -> str:
    return f"{'.'.join(str(part) for part in path)}: " if path else ""
