from __future__ import annotations

import logging
import pickle
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_approvals.core.errors import ConfigurationError, InvalidRequestError, VerificationError
from airflow_approvals.pii.masking.encryption import decrypt, decrypt_all, encrypt
from airflow_approvals.pii.masking.fakes import EMAIL, fake, is_iban, is_luhn
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import (
    Encrypt,
    Fake,
    Generalise,
    Hash,
    Mask,
    Operator,
    Pseudonym,
    Redact,
    Replace,
    ShiftDate,
    compile_operator,
    own_shapes,
)
from tests.pii.mask_samples import KEYS, OTHER_KEYS, relaxed

KEY = b"f" * 32
texts = st.text(min_size=1, max_size=60)
keyed: list[Operator] = [
    Hash(domain="customers"),
    Pseudonym(domain="customers"),
    Encrypt(domain="customers"),
    Fake(domain="customers", entity_type="EMAIL_ADDRESS"),
]


def apply(
    operator: Operator, text: str, entity: str = "PERSON", subject: str = "", keys: KeyRing = KEYS
) -> str:
    return compile_operator(operator, keys)(text, entity, subject)


@pytest.mark.parametrize(
    ("operator", "text", "expected"),
    [
        (Replace(), "Ada", "<PERSON>"),
        (Replace(word="gone"), "Ada", "gone"),
        (Redact(), "Ada", ""),
        (Mask(), "Ada-L", "***-*"),
        (Mask(keep_last=4), "4111 1111 1111 1234", "**** **** **** 1234"),
        (Mask(keep_last=4), "12345", "****5"),
        (Mask(keep_last=4), "ab", "**"),
        (Generalise(to="year"), "1985-03-04", "1985"),
        (Generalise(to="month"), "04.03.1985", "1985-03"),
        (Generalise(to="year"), "no date", "<PERSON>"),
        (Generalise(to="age_band"), "37", "30-39"),
        (Generalise(to="age_band"), "104", "90+"),
        (Generalise(to="age_band"), "old", "<PERSON>"),
        (Generalise(to="prefix"), "80331 ", "80"),
        (Generalise(to="prefix", keep_first=3), "SW1A 1AA", "SW1"),
        (Generalise(to="prefix"), "1", ""),
    ],
)  # fmt: skip
def test_operators_that_need_no_key(operator: Operator, text: str, expected: str) -> None:
    assert apply(operator, text) == expected


@pytest.mark.parametrize("operator", keyed, ids=lambda operator: operator.op)
@relaxed
@given(text=texts)
def test_keyed_operators_are_deterministic_and_depend_on_the_key(operator: Operator, text: str) -> None:
    once = apply(operator, text)
    assert once == apply(operator, text)
    assert once != apply(operator, text, keys=OTHER_KEYS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada Lovelace", "ADA  lovelace "),
        ("Müller", "Mu\u0308ller"),
        ("\uff11\uff12\uff13", "123"),
        ("A\u200bda", "ada"),
    ],
)
def test_two_spellings_of_one_person_get_the_same_pseudonym(one: str, other: str) -> None:
    assert apply(Pseudonym(domain="customers"), one) == apply(Pseudonym(domain="customers"), other)


def test_the_same_value_does_not_join_across_domains() -> None:
    assert apply(Pseudonym(domain="customers"), "Ada") != apply(Pseudonym(domain="others"), "Ada")


@relaxed
@given(text=st.text(alphabet=st.characters(codec=None), max_size=200))
def test_decrypt_undoes_encrypt(text: str) -> None:
    assert decrypt(encrypt(text, KEYS, "customers"), KEYS, "customers") == text


def test_tokens_within_a_text_can_be_opened() -> None:
    token = encrypt("Ada", KEYS, "customers")
    assert decrypt_all(f"by {token}, and {token}.", KEYS, "customers") == "by Ada, and Ada."


TAMPERINGS = {
    "one sign changed": lambda token: token[:-3] + ("a" if token[-3] != "a" else "b") + token[-2:],
    "unused bits": lambda token: token[:-1] + chr(ord(token[-1]) + 1),
    "cut off": lambda token: token[:-4],
    "longer": lambda token: token + "aaaaaaaa",
    "upper case": lambda token: token.upper(),
    "no token at all": lambda token: "Ada",
    "nothing": lambda token: "",
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_a_token_that_was_changed_is_refused(tamper: object) -> None:
    token = encrypt("canary-7f3a", KEYS, "customers")
    with pytest.raises(VerificationError, match="customers") as caught:
        decrypt(tamper(token), KEYS, "customers")  # type: ignore[operator]  # a row of the table above
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(("keys", "domain"), [(OTHER_KEYS, "customers"), (KEYS, "others")])
def test_a_token_opens_under_its_own_key_and_domain_alone(keys: KeyRing, domain: str) -> None:
    with pytest.raises(VerificationError):
        decrypt(encrypt("Ada", KEYS, "customers"), keys, domain)


@relaxed
@given(days=st.integers(0, 20_000), apart=st.integers(0, 500), subject=texts)
def test_dates_of_a_subject_keep_their_intervals_and_never_stay(days: int, apart: int, subject: str) -> None:
    operator = ShiftDate(domain="customers", most_days=30)
    one = date(1970, 1, 1) + timedelta(days=days)
    other = one + timedelta(days=apart)
    moved = [date.fromisoformat(apply(operator, str(day), "DATE_TIME", subject)) for day in (one, other)]
    assert moved[1] - moved[0] == other - one
    assert 1 <= abs((moved[0] - one).days) <= 30


def test_a_shifted_date_keeps_its_form_and_its_time_of_day() -> None:
    operator = ShiftDate(domain="customers", most_days=1)
    moved = apply(operator, "2021-03-04 12:13:14", "DATE_TIME", "7")
    assert moved in ("2021-03-03 12:13:14", "2021-03-05 12:13:14")
    assert apply(operator, "4 March 2021", "DATE_TIME", "7")[2:] == " March 2021"
    assert apply(operator, "last Tuesday", "DATE_TIME", "7") == "<DATE_TIME>"


@relaxed
@given(
    digits=st.text(alphabet="0123456789", min_size=13, max_size=19), key=st.binary(min_size=32, max_size=32)
)
def test_fake_cards_pass_luhn_and_keep_their_shape(digits: str, key: bytes) -> None:
    text = "-".join(digits[place : place + 4] for place in range(0, len(digits), 4))
    made = fake(text, "CREDIT_CARD", key)
    assert is_luhn(made.replace("-", ""))
    assert [sign if sign == "-" else "0" for sign in made] == [sign if sign == "-" else "0" for sign in text]
    assert made != text
    assert made.replace("-", "") == fake(digits, "CREDIT_CARD", key)


@pytest.mark.parametrize(
    "iban", ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "FR1420041010050500013M02606"]
)
@relaxed
@given(key=st.binary(min_size=32, max_size=32))
def test_fake_ibans_have_a_right_checksum_and_the_same_country(iban: str, key: bytes) -> None:
    assert is_iban(iban)
    made = fake(iban, "IBAN_CODE", key)
    assert is_iban(made)
    assert (made[:2], len(made), made == iban) == (iban[:2], len(iban), False)


@pytest.mark.parametrize("phone", ["(212) 555-0187", "+49 89 1234567", "+44 20 7946 0958", "202-456-1111x12"])
@relaxed
@given(key=st.binary(min_size=32, max_size=32))
def test_fake_phone_numbers_are_as_valid_as_what_they_replace(phone: str, key: bytes) -> None:
    made = fake(phone, "PHONE_NUMBER", key)
    assert made != phone
    assert len(made) == len(phone)
    import phonenumbers

    before, after = (
        phonenumbers.is_valid_number(phonenumbers.parse(number, "US")) for number in (phone, made)
    )
    assert after >= before


def test_of_a_phone_number_with_an_extension_no_more_is_kept_than_of_one_without() -> None:
    assert fake("(444)916-3033x07036", "PHONE_NUMBER", KEY)[:5] == "(444)"
    assert fake("(444)916-3033x07036", "PHONE_NUMBER", KEY)[5:13] != "916-3033"


@relaxed
@given(text=texts, key=st.binary(min_size=32, max_size=32))
def test_fake_addresses_are_in_domains_that_nobody_can_own(text: str, key: bytes) -> None:
    assert EMAIL.fullmatch(fake(text, "EMAIL_ADDRESS", key))


@relaxed
@given(text=texts, entity=st.sampled_from(["PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN"]))
def test_a_fake_is_made_of_whatever_it_is_given_and_is_never_the_value(text: str, entity: str) -> None:
    made = fake(text, entity, KEY)
    assert made == fake(text, entity, KEY)
    assert made != text or not any(sign.isalnum() for sign in text)


@relaxed
@given(text=texts)
def test_what_operators_leave_behind_is_told_by_its_shape(text: str) -> None:
    operators = (
        Replace(),
        Pseudonym(domain="customers"),
        Encrypt(domain="customers"),
        Hash(domain="customers"),
    )
    shapes = own_shapes(frozenset({"PERSON"}), operators)
    for operator in operators:
        assert shapes.fullmatch(apply(operator, text))
    assert not shapes.search("<JOHN> JOHN_0123 <person>")


def test_a_shape_counts_only_where_an_operator_makes_it() -> None:
    shapes = own_shapes(frozenset({"PERSON"}), [Replace()])
    for operator in (Pseudonym(domain="customers"), Encrypt(domain="customers"), Hash(domain="customers")):
        assert not shapes.search(apply(operator, "x"))
    every = own_shapes(frozenset({"PERSON"}), [Replace(), Fake(domain="customers"), Hash(domain="customers")])
    assert not every.search("christopherdrake@example.com abcdefghijklmnop@example.org")


def test_a_missing_or_short_key_is_refused_before_any_row() -> None:
    with pytest.raises(ConfigurationError, match=r"no key for domain 'nobody'.*customers"):
        compile_operator(Pseudonym(domain="nobody"), KEYS)
    with pytest.raises(ConfigurationError, match="expected at least 32"):
        KeyRing(domains={"customers": b"short"})


@pytest.mark.parametrize(
    "operator",
    [
        Mask(sign="x"),
        Mask(keep_last=-1),
        Generalise(to="prefix", keep_first=0),
        ShiftDate(domain="customers", most_days=0),
    ],
)
def test_an_operator_that_cannot_hold_its_promise_is_refused(operator: Operator) -> None:
    with pytest.raises(InvalidRequestError):
        compile_operator(operator, KEYS)


def test_keys_are_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyRing(domains={"customers": b"canary-7f3a" * 3})
    logging.getLogger("tests").warning("%s %r", keys, keys)
    assert "canary" not in caplog.text
    assert pickle.loads(pickle.dumps(keys)).domains == keys.domains  # noqa: S301  # worker processes get them
