"""What stands where a value stood: one frozen configuration and one pure function per operator.

An operator takes a text, the entity type that it is, and the subject whose it is (only dates ask for it), and
returns what stands there now. Nothing here knows tables, and no value ever gets into a message.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.pii.masking import dates, encryption, fakes
from airflow_approvals.pii.masking.forms import joining_form
from airflow_approvals.pii.masking.keys import KeyRing


@dataclass(frozen=True, kw_only=True)
class Replace:
    """The entity type in angle brackets, or a fixed word."""

    op: Literal["replace"] = "replace"
    word: str | None = None


@dataclass(frozen=True, kw_only=True)
class Redact:
    """Nothing: the empty text."""

    op: Literal["redact"] = "redact"


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Stars for every letter and digit but the last few; what is short shows nothing of itself."""

    op: Literal["mask"] = "mask"
    keep_last: int = 0  # characters; at most a third of the text is ever kept
    sign: str = "*"


@dataclass(frozen=True, kw_only=True)
class Hash:
    """SHA-256 of a salt, made from the domain's key, and the text: 64 hex digits."""

    op: Literal["hash"] = "hash"
    domain: str


@dataclass(frozen=True, kw_only=True)
class Pseudonym:
    """A token that the same value always gets under one key: `PERSON_`, 24 hex digits of HMAC-SHA256."""

    op: Literal["pseudonym"] = "pseudonym"
    domain: str
    prefix: str | None = None  # instead of the entity type


@dataclass(frozen=True, kw_only=True)
class ShiftDate:
    """The date, moved by a number of days that is the subject's own: intervals within a subject are kept."""

    op: Literal["shift_date"] = "shift_date"
    domain: str
    most_days: int = 365  # either way; never none


@dataclass(frozen=True, kw_only=True)
class Generalise:
    """Less exact: a date's year or month, an age's band of ten years, the first characters of a postcode."""

    op: Literal["generalise"] = "generalise"
    to: Literal["year", "month", "age_band", "prefix"]
    keep_first: int = 3  # of a prefix


@dataclass(frozen=True, kw_only=True)
class Fake:
    """Another value of the same shape, valid where the type has a checksum."""

    op: Literal["fake"] = "fake"
    domain: str
    entity_type: str | None = None  # the shape to make, where it is not the one that was found


@dataclass(frozen=True, kw_only=True)
class Encrypt:
    """A token that `encryption.decrypt` opens with the key."""

    op: Literal["encrypt"] = "encrypt"
    domain: str


Operator = Replace | Redact | Mask | Hash | Pseudonym | ShiftDate | Generalise | Fake | Encrypt
Apply = Callable[[str, str, str], str]
"""Text, entity type, subject ("" where there is none) to what stands there now."""


def compile_operator(operator: Operator, keys: KeyRing) -> Apply:  # one row per operator
    """Return the function that the operator stands for; raise where it cannot do what it promises."""
    match operator:
        case Replace():
            return lambda text, entity, subject: operator.word or f"<{entity}>"
        case Redact():
            return lambda text, entity, subject: ""
        case Mask():
            return _mask(operator)
        case Hash():
            return _hash(operator, keys)
        case Pseudonym():
            return _pseudonym(operator, keys)
        case ShiftDate():
            return _shift(operator, keys)
        case Generalise():
            return _generalise(operator)
        case Fake():
            return _fake(operator, keys)
        case Encrypt():
            keys.key_for(operator.domain, "encrypt", 64)  # missing keys are found before the first row
            return lambda text, entity, subject: encryption.encrypt(text, keys, operator.domain)


def needs_subject(operator: Operator) -> bool:
    """Return whether what comes out depends on whose value it is."""
    return isinstance(operator, ShiftDate)


def own_shapes(entity_types: frozenset[str], operators: Iterable[Operator]) -> re.Pattern[str]:
    """Return what these operators leave behind that can be told from data by its shape alone.

    Placeholders and tokens count only with one of `entity_types` (`<JOHN>` is no placeholder), and what an
    operator makes only where there is one: 64 hex digits may be somebody's.
    """
    names = "|".join(sorted(map(re.escape, entity_types), key=len, reverse=True)) or "(?!)"
    by_kind = {
        Pseudonym: rf"(?:{names})_[0-9a-f]{{24}}",
        Encrypt: encryption.TOKEN.pattern,
        Hash: "[0-9a-f]{64}",
        Fake: fakes.EMAIL.pattern,
    }
    kinds = {type(operator) for operator in operators}
    shapes = [rf"(?<!\w){shape}(?!\w)" for kind, shape in by_kind.items() if kind in kinds]
    return re.compile("|".join([f"<(?:{names})>", *shapes]))


def _mask(operator: Mask) -> Apply:
    if operator.keep_last < 0 or len(operator.sign) != 1 or operator.sign.isalnum():
        raise InvalidRequestError(
            "mask: expected keep_last of 0 or more, and one sign that is no letter or digit"
        )

    def mask(text: str, entity: str, subject: str) -> str:
        kept = min(operator.keep_last, sum(map(str.isalnum, text)) // 3)
        made: list[str] = []
        for sign in reversed(text):
            keep = not sign.isalnum() or kept > 0
            kept -= sign.isalnum()
            made.append(sign if keep else operator.sign)
        return "".join(reversed(made))

    return mask


def _hash(operator: Hash, keys: KeyRing) -> Apply:
    salt = keys.key_for(operator.domain, "hash")
    return lambda text, entity, subject: hashlib.sha256(
        salt + joining_form(text).encode("utf-8", "surrogatepass")
    ).hexdigest()


def _pseudonym(operator: Pseudonym, keys: KeyRing) -> Apply:
    key = keys.key_for(operator.domain, "pseudonym")

    def pseudonym(text: str, entity: str, subject: str) -> str:
        form = joining_form(text).encode("utf-8", "surrogatepass")
        return f"{operator.prefix or entity}_{hmac.digest(key, form, 'sha256').hex()[:24]}"

    return pseudonym


def _shift(operator: ShiftDate, keys: KeyRing) -> Apply:
    if operator.most_days < 1:
        raise InvalidRequestError("shift_date: expected most_days of 1 or more")
    key = keys.key_for(operator.domain, "shift_date")
    return lambda text, entity, subject: dates.shift(
        text, dates.days_of(subject, key, operator.most_days), f"<{entity}>"
    )


def _generalise(operator: Generalise) -> Apply:
    if operator.to == "prefix":
        if operator.keep_first < 1:
            raise InvalidRequestError("generalise: expected keep_first of 1 or more")
        # Never the whole of it, however short it is.
        return lambda text, entity, subject: text.strip()[: min(operator.keep_first, len(text.strip()) // 2)]
    if operator.to == "age_band":
        return lambda text, entity, subject: dates.age_band(text, f"<{entity}>")
    to_month = operator.to == "month"
    return lambda text, entity, subject: dates.generalise(text, f"<{entity}>", to_month=to_month)


def _fake(operator: Fake, keys: KeyRing) -> Apply:
    key = keys.key_for(operator.domain, "fake")
    return lambda text, entity, subject: fakes.fake(text, operator.entity_type or entity, key)
