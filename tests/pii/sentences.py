"""Made-up sentences of the kind that presidio-research generates, with the places of everything personal."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from faker import Faker

from tests.pii.customers import NEW_YEAR

TEMPLATES = (
    "My name is {person} and my card is {card}.",
    "Please send the invoice to {email}, {person} asked for it.",
    "Can someone call me on {phone}? Thanks, {person}",
    "I live at {address}, please update my file.",
    "{person} moved to {city} on {date}.",
    "The IBAN for the refund is {iban}, in the name of {person}.",
    "SSN {ssn} belongs to {person}, born {date}.",
    "We logged in from {ip} at noon and could not reach the shop.",
    "Have you heard {person} speaking? She is {nationality}.",
    "The {nationality} embassy in {city} asked for {person}.",
    "Our office moved to {address}. Mail {email} with questions.",
    "A transfer of 250 dollars was made from {iban} to {iban}.",
    "My driver license number is {license}.",
    "{person}\n{address}\n{phone}\n{email}",
    "Dear {person}, your appointment is on {date}. Yours, {person}",
    "Charge it to {card}, it expires soon.",
    "who is {person}? the number {phone} called twice",
    "I want to cancel my card {card} because I lost it in {city}.",
    "{person} and {person} will share a room in {city}.",
    "See {url} for the terms, or write to {email}.",
    "The lease at {address} ends; {person} has the keys.",
    "Ask for {person} at extension 12, order 48213 is still open.",
    "Nothing to report today, the shipment of 48 boxes arrived in time.",
    "The invoice was paid twice, please refund the second payment.",
    "Version 3.11.7 was rolled out to 1200 devices without an incident.",
    "Please close ticket 100482; the printer on floor 3 works again.",
)
TYPES = {
    "person": "PERSON",
    "card": "CREDIT_CARD",
    "email": "EMAIL_ADDRESS",
    "phone": "PHONE_NUMBER",
    "address": "LOCATION",
    "city": "LOCATION",
    "date": "DATE_TIME",
    "iban": "IBAN_CODE",
    "ssn": "US_SSN",
    "ip": "IP_ADDRESS",
    "nationality": "NRP",
    "license": "US_DRIVER_LICENSE",
    "url": "URL",
}
NATIONALITIES = ("American", "German", "French", "Italian", "Polish", "Indian", "Spanish", "Canadian")


class Truth(NamedTuple):
    """One personal thing and where it stands."""

    entity_type: str
    start: int
    end: int


class Sentence(NamedTuple):
    """A text and all that is personal in it, in order."""

    text: str
    truths: list[Truth]


def sentences(count: int, seed: int = 1) -> list[Sentence]:
    """Return so many sentences, the same for the same seed."""
    dice = Random(seed)  # noqa: S311  # made-up data
    fakes = [Faker(locale) for locale in ("en_US", "en_US", "en_US", "de_DE", "fr_FR", "en_IN", "it_IT")]
    for number, fake in enumerate(fakes):
        fake.seed_instance(seed * 100 + number)
    makers = _makers(dice, fakes)
    return [_filled(dice.choice(TEMPLATES), makers) for _ in range(count)]


def _filled(template: str, makers: dict[str, Callable[[], str]]) -> Sentence:
    text = ""
    truths: list[Truth] = []
    for piece in re.split(r"(\{\w+\})", template):
        name = piece[1:-1]
        if piece[:1] == "{" and name in makers:
            value = makers[name]()
            truths.append(Truth(TYPES[name], len(text), len(text) + len(value)))
            text += value
        else:
            text += piece
    return Sentence(text, truths)


def _makers(dice: Random, fakes: list[Faker]) -> dict[str, Callable[[], str]]:
    american = fakes[0]

    def person() -> str:
        fake = dice.choice(fakes)
        return f"{fake.first_name()} {fake.last_name()}"

    return {
        "person": person,
        "card": american.credit_card_number,
        "email": american.email,
        "phone": american.phone_number,
        "address": lambda: american.address().replace("\n", ", "),
        "city": american.city,
        "date": lambda: american.date(
            dice.choice(("%Y-%m-%d", "%d %B %Y", "%m/%d/%Y")), end_datetime=NEW_YEAR
        ),
        "iban": fakes[3].iban,
        "ssn": american.ssn,
        "ip": american.ipv4,
        "nationality": lambda: dice.choice(NATIONALITIES),
        "license": lambda: f"{dice.choice('ABCDEF')}{dice.randrange(10**6, 10**7)}",
        "url": american.url,
    }
