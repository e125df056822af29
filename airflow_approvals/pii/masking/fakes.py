"""Fakes that stay valid: the same value gives the same fake under the same key, and never itself.

| entity type   | kept                                       | made up                                    |
|---------------|--------------------------------------------|--------------------------------------------|
| EMAIL_ADDRESS | that it is one                             | name, and a domain of RFC 2606 (.example)  |
| PHONE_NUMBER  | separators, all but the last seven digits  | these, extensions; a valid one stays valid |
| CREDIT_CARD   | separators, length, first digit            | all other digits; Luhn holds               |
| IBAN_CODE     | separators, country, kind of each character| the account; the checksum holds            |
| anything else | length, separators, case                   | every letter and digit                     |

Fakes are one-way. Two values may get the same fake where there are few possible ones (a short number).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator

from airflow_approvals.pii.masking.forms import joining_form

# Nobody has an address under `.example` (RFC 2606), so that no real one can pass for a fake.
EMAIL = re.compile(r"[a-z]{16}@mail[123]\.example")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ATTEMPTS = 500


def fake(text: str, entity_type: str, key: bytes) -> str:
    """Return the fake for `text`, whose shape depends on `entity_type`."""
    form = joining_form(text)
    makers = {
        "EMAIL_ADDRESS": _email,
        "PHONE_NUMBER": _phone,
        "CREDIT_CARD": _card,
        "IBAN_CODE": _iban,
    }
    return makers.get(entity_type, _shape)(text, form, key)


def is_luhn(digits: str) -> bool:
    """Return whether the last digit is the check digit of ISO/IEC 7812."""
    return bool(digits) and _luhn_sum(digits) % 10 == 0


def is_iban(text: str) -> bool:
    """Return whether the two check digits are those of ISO 13616."""
    packed = _packed(text)
    if len(packed) < 15 or not re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]+", packed):
        return False
    return _mod97(packed[4:] + packed[:4]) == 1


def _email(text: str, form: str, key: bytes) -> str:
    numbers = _stream(key, "email", form)
    name = "".join(_LETTERS[next(numbers) % 26] for _ in range(16))
    return f"{name}@mail{1 + next(numbers) % 3}.example"


def _card(text: str, form: str, key: bytes) -> str:
    digits = _digits(text)
    if len(digits) < 12:
        return _shape(text, form, key)
    numbers = _stream(key, "card", digits)
    while True:
        body = digits[0] + "".join(str(next(numbers) % 10) for _ in digits[1:-1])
        made = body + str(-_luhn_sum(body + "0") % 10)
        if made != digits:
            return _refill(text, made)


def _iban(text: str, form: str, key: bytes) -> str:
    packed = _packed(text)
    if not re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", packed):
        return _shape(text, form, key)
    numbers = _stream(key, "iban", packed)
    while True:
        body = "".join(_like(sign, next(numbers)) for sign in packed[4:])
        checksum = 98 - _mod97(body + packed[:2] + "00")
        made = f"{packed[:2]}{checksum:02d}{body}"
        if made != packed:
            return _refill(text, made, str.isalnum)


def _phone(text: str, form: str, key: bytes) -> str:
    """Try until the number is as valid as the one that it replaces."""
    digits = _digits(text)
    if len(digits) < 5:
        return _shape(text, form, key)
    numbers = _stream(key, "phone", digits)
    region = _region(text)
    extension = len(digits) - len(_digits(re.split(r"[A-Za-z]", text, maxsplit=1)[0]))
    free = min(7 + extension, len(digits) - 1)
    for _ in range(_ATTEMPTS if region else 1):
        made = digits[:-free] + "".join(str(next(numbers) % 10) for _ in range(free))
        candidate = _refill(text, made)
        if made != digits and (region is None or _is_valid_phone(candidate, region)):
            return candidate
    return _shape(text, form, key)


def _shape(text: str, form: str, key: bytes) -> str:
    """Give each letter another letter of its case, each digit a digit; what is neither stays."""
    numbers = _stream(key, "shape", form)
    while True:
        made = "".join(_like(sign, next(numbers)) for sign in text)
        if made != text or not any(sign.isalnum() for sign in text):
            return made


def _like(sign: str, number: int) -> str:
    if sign.isdecimal():
        return str(number % 10)
    if sign.isalpha():
        letter = _LETTERS[number % 26]
        return letter.upper() if sign.isupper() else letter
    return "0" if sign.isalnum() else sign


def _region(text: str) -> str | None:
    import phonenumbers

    for region in ("US", "GB", "DE", "FR", "IN", "IL", "CA", "BR"):  # Presidio's own, and what it tries first
        if _is_valid_phone(text, region):
            return region
    return phonenumbers.UNKNOWN_REGION if _is_valid_phone(text, phonenumbers.UNKNOWN_REGION) else None


def _is_valid_phone(text: str, region: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


def _refill(text: str, made: str, is_place: Callable[[str], bool] = str.isdecimal) -> str:
    """Put the characters of `made` where `text` has its own; return them alone where they do not fit in."""
    if sum(map(is_place, text)) != len(made):
        return made
    signs = iter(made)
    return "".join(next(signs) if is_place(sign) else sign for sign in text)


def _digits(text: str) -> str:
    return "".join(sign for sign in joining_form(text) if sign.isdecimal())


def _packed(text: str) -> str:
    return "".join(sign for sign in joining_form(text).upper() if sign.isalnum())


def _luhn_sum(digits: str) -> int:
    total = 0
    for place, sign in enumerate(reversed(digits)):
        value = int(sign) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total


def _mod97(text: str) -> int:
    return int("".join(str(int(sign, 36)) for sign in text)) % 97


def _stream(key: bytes, kind: str, form: str) -> Iterator[int]:
    """Yield 16-bit numbers without end that only the key and the value determine."""
    seed = hmac.digest(key, f"{kind}\0{form}".encode("utf-8", "surrogatepass"), hashlib.sha256)
    counter = 0
    while True:
        block = hmac.digest(seed, counter.to_bytes(8, "big"), hashlib.sha256)
        for place in range(0, 32, 2):
            yield int.from_bytes(block[place : place + 2], "big")
        counter += 1
