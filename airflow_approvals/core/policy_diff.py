"""What a change of the policy file makes weaker: more that can be approved, by more people, with less.

Sound rather than complete: where nothing is called weaker, nothing can be approved under the new file that
the old one would not have let through with the same answers. What cannot be compared (expressions, globs that
are not plainly narrower) is called weaker, with the word "may".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from airflow_approvals.core.assignment import assign
from airflow_approvals.core.model import Channel
from airflow_approvals.core.policy import Match, Policy, PolicyFile, Rule
from airflow_approvals.core.policy_match import is_within, is_within_name
from airflow_approvals.core.policy_words import duration_text

Effect = Literal["weaker", "stricter", "other"]
_REASONS = ("never", "on_deny", "always")
_LOGGED_IN = (Channel.API, Channel.CLI)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference, what it does, and where."""

    effect: Effect
    where: str  # policies.NAME, groups.NAME, protected_connections, ...
    told: str


def diff(old: PolicyFile, new: PolicyFile) -> tuple[Difference, ...]:
    """Return everything that differs, the weaker first."""
    found = dict.fromkeys(_differences(old, new))
    order: dict[str, int] = {"weaker": 0, "stricter": 1, "other": 2}
    return tuple(sorted(found, key=lambda each: (order[each.effect], each.where)))


def _differences(old: PolicyFile, new: PolicyFile) -> Iterator[Difference]:
    yield from _groups(old, new)
    yield from _coverage(old, new)
    for policy in new.policies:
        before = old.find_policy(policy.name)
        if before is not None:
            yield from _policy(before, policy)
    for name in ("protected_connections", "protected_variables", "gated_operators"):
        yield from _entries(name, old, new)
    yield from _channels(old, new)


# --- who ---------------------------------------------------------------------------------------------------


def _groups(old: PolicyFile, new: PolicyFile) -> Iterator[Difference]:
    for name in sorted(old.groups.keys() | new.groups.keys()):
        was, now = old.groups.get(name), new.groups.get(name)
        before = set(was.users) if was else set()
        after = set(now.users) if now else set()
        where = f"groups.{name}"
        if after - before and was is not None:
            yield Difference(effect="weaker", where=where, told=f"{_names(after - before)} joined")
        if before - after and now is not None:
            yield Difference(effect="stricter", where=where, told=f"{_names(before - after)} left")
        if was is None or now is None:
            # Who is new in a group that nothing asked is told where a policy begins to ask it.
            told = "is new" if was is None else "is gone"
            yield Difference(effect="other", where=where, told=f"{told}: {_names(after or before)}")
        elif was.slack_usergroup != now.slack_usergroup:
            effect: Effect = "weaker" if now.slack_usergroup else "stricter"
            yield Difference(effect=effect, where=where, told="the Slack user group is another one")


# --- what --------------------------------------------------------------------------------------------------


def _coverage(old: PolicyFile, new: PolicyFile) -> Iterator[Difference]:
    """Yield what may be covered by another policy than before, or by one at all.

    What reaches a policy of the new file is safe if it reached the policy of that name before: the match is
    no wider, and everything that came before it still does, and takes at least as much.
    """
    for at, policy in enumerate(new.policies):
        where, before = f"policies.{policy.name}", old.find_policy(policy.name)
        others = [each for each in old.policies if each.name != policy.name]
        if before is not None and _is_narrower(policy.match, before.match):
            ahead = old.policies[: old.policies.index(before)]
            if all(_is_taken(each.match, new.policies[:at]) for each in ahead):
                if policy.match != before.match:
                    yield Difference(effect="stricter", where=where, told="it covers less")
                continue
            others = list(ahead)
        elif before is None:
            yield Difference(
                effect="weaker", where=where, told="a new policy: what it covers may be approved"
            )
        else:
            yield Difference(effect="weaker", where=where, told="it may cover more: its match is wider")
        for other in others:
            if not _is_taken(other.match, new.policies[:at]) and _may_meet(policy.match, other.match):
                told = f"actions of policy {other.name} may come under {policy.name}"
                yield Difference(effect="weaker", where=where, told=told)
    for each in old.policies:
        if new.find_policy(each.name) is None:
            yield Difference(effect="other", where=f"policies.{each.name}", told="is gone")


def _is_taken(match: Match, ahead: Collection[Policy]) -> bool:
    """Return whether one policy ahead surely takes everything that `match` covers."""
    return any(_is_narrower(match, each.match) for each in ahead)


def _is_narrower(inner: Match, outer: Match) -> bool:
    """Return whether `outer` surely covers all that `inner` does."""
    return (
        _actions_within(inner.action, outer.action)
        and _each_within(inner.destination, outer.destination, is_within)
        and _each_within(inner.source, outer.source, is_within)
        and _each_within(inner.dag_id, outer.dag_id, is_within_name)
    )


def _actions_within(inner: Collection[str] | None, outer: Collection[str] | None) -> bool:
    if outer is None or "*" in outer:
        return True
    return inner is not None and set(inner) <= set(outer)


def _each_within(inner: Collection[str] | None, outer: Collection[str] | None, is_in: Any) -> bool:
    if outer is None:
        return True
    return inner is not None and all(any(is_in(one, other) for other in outer) for one in inner)


def _may_meet(one: Match, other: Match) -> bool:
    """Return whether both could cover one action; only plainly different kinds of action rule that out."""
    if one.action is None or other.action is None or {"*"} & {*one.action, *other.action}:
        return True
    return bool(set(one.action) & set(other.action))


# --- with what ---------------------------------------------------------------------------------------------


def _policy(old: Policy, new: Policy) -> Iterator[Difference]:
    where = f"policies.{new.name}"
    for effect, told in (
        *_rules(old, new),
        *_denials(old, new),
        *_words(old, new),
        *_durations(old, new),
        *_ways_past(old, new),
        *_telling(old, new),
    ):
        yield Difference(effect=effect, where=where, told=told)


_Told = tuple[Effect, str]


def _rules(old: Policy, new: Policy) -> Iterator[_Told]:
    """Yield which old rules no new rule surely keeps; each new rule can keep one old one."""
    places = [
        [str(at) for at, rule in enumerate(new.require) if _keeps(rule, demanded)] for demanded in old.require
    ]
    for demanded, kept_by in zip(old.require, assign(places), strict=True):
        if kept_by is None:
            yield "weaker", f"no longer surely asked: {_rule_words(demanded)}"
    added = [rule for rule in new.require if not any(_keeps(old_rule, rule) for old_rule in old.require)]
    for rule in added:
        yield "stricter", f"asked as well, or more: {_rule_words(rule)}"
    # Where no rule applies, one yes of any group of the policy is enough.
    strange = set(new.approver_groups) - set(old.approver_groups)
    if strange and all(rule.when is not None for rule in old.require):
        yield "weaker", f"where no old rule applies, {_names(strange)} may be enough"
    elif strange and all(rule.when is not None for rule in new.require):
        yield "weaker", f"where no rule applies, {_names(strange)} is enough"


def _keeps(rule: Rule, demanded: Rule) -> bool:
    """Return whether `rule` surely asks for all that `demanded` does."""
    return (
        rule.group == demanded.group
        and rule.approvals >= demanded.approvals
        and rule.when in (None, demanded.when)
    )


def _rule_words(rule: Rule) -> str:
    when = f" when {rule.when}" if rule.when else ""
    return f"{rule.approvals} by {rule.group}{when}"


def _denials(old: Policy, new: Policy) -> Iterator[_Told]:
    for expression in old.deny_if:
        if expression not in new.deny_if:
            yield "weaker", f"no longer denied: {expression}"
    for expression in new.deny_if:
        if expression not in old.deny_if:
            yield "stricter", f"denied: {expression}"


def _words(old: Policy, new: Policy) -> Iterator[_Told]:
    if old.self_approval != new.self_approval:
        yield (
            ("weaker" if new.self_approval == "allowed" else "stricter"),
            f"self-approval {new.self_approval}",
        )
    was, now = _REASONS.index(old.require_reason), _REASONS.index(new.require_reason)
    if was != now:
        yield ("weaker" if now < was else "stricter"), f"a reason is wanted {new.require_reason}"
    if old.slack_identity != new.slack_identity:
        by_email = new.slack_identity == "link_or_email"
        yield ("weaker" if by_email else "stricter"), f"a Slack account is known by {new.slack_identity}"
    if old.high_risk != new.high_risk:
        told = "an approval by click is" if new.high_risk else "no approval by click is"
        yield ("stricter" if new.high_risk else "weaker"), f"{told} asked for twice"
    if old.channels != new.channels:
        more = new.channels is None or (old.channels is not None and not _spoken(new) <= _spoken(old))
        told = ", ".join(new.channels) if new.channels else "anywhere"
        yield ("weaker" if more else "stricter"), f"answers are taken from {told}"


def _spoken(policy: Policy) -> set[Channel]:
    channels = set(policy.channels or ())
    return channels | set(_LOGGED_IN) if Channel.PAGE in channels else channels


def _durations(old: Policy, new: Policy) -> Iterator[_Told]:
    for what, was, now in (
        ("a request waits", old.expires_after, new.expires_after),
        ("an approval is good for", old.receipt_valid_for, new.receipt_valid_for),
    ):
        if was != now:
            yield _longer(was, now), f"{what} {duration_text(now)}, it was {duration_text(was)}"


def _longer(was: timedelta, now: timedelta) -> Effect:
    return "weaker" if now > was else "stricter"


def _ways_past(old: Policy, new: Policy) -> Iterator[_Told]:
    if old.break_glass != new.break_glass:
        group = new.break_glass.group if new.break_glass else None
        yield (
            ("weaker", f"{group} may break the glass")
            if group
            else ("stricter", "nobody may break the glass")
        )
    if old.standing == new.standing:
        return
    if new.standing is None:
        yield "stricter", "an approval no longer stands for later runs"
        return
    if old.standing is None:
        yield "weaker", f"an approval may stand for {new.standing.max_days} days"
        return
    was, now = old.standing, new.standing
    if was.max_days != now.max_days:
        effect: Effect = "weaker" if now.max_days > was.max_days else "stricter"
        yield effect, f"an approval may stand for {now.max_days} days, it was {was.max_days}"
    for word in was.void_on:
        if word not in now.void_on:
            yield "weaker", f"drift that no longer ends a standing approval: {word}"
    for word in now.void_on:
        if word not in was.void_on:
            yield "stricter", f"drift that ends a standing approval: {word}"


def _telling(old: Policy, new: Policy) -> Iterator[_Told]:
    unheard, heard = set(old.notify) - set(new.notify), set(new.notify) - set(old.notify)
    if unheard:
        yield "weaker", f"no longer told: {_names(unheard)}"
    if heard:
        yield "other", f"told as well: {_names(heard)}"
    if (old.remind_every, old.escalate) != (new.remind_every, new.escalate):
        yield "other", "reminders or escalation are others"


# --- the rest of the file --------------------------------------------------------------------------------


def _entries(name: str, old: PolicyFile, new: PolicyFile) -> Iterator[Difference]:
    was = [entry.model_dump(mode="json", exclude_none=True) for entry in getattr(old, name, ())]
    now = [entry.model_dump(mode="json", exclude_none=True) for entry in getattr(new, name, ())]
    for entry in was:
        if entry not in now:
            yield Difference(effect="weaker", where=name, told=f"gone, or another: {_entry_words(entry)}")
    for entry in now:
        if entry not in was:
            yield Difference(effect="stricter", where=name, told=f"new, or another: {_entry_words(entry)}")
    kept = [entry for entry in was if entry in now]
    if kept != [entry for entry in now if entry in was]:
        yield Difference(
            effect="weaker", where=name, told="another order: the first that fits may be another"
        )


def _entry_words(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in entry.items() if value)


def _channels(old: PolicyFile, new: PolicyFile) -> Iterator[Difference]:
    for name in sorted(old.channels.keys() | new.channels.keys()):
        if old.channels.get(name) != new.channels.get(name):
            yield Difference(effect="other", where=f"channels.{name}", told="is new, gone or another")


def _names(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
