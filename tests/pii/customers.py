"""A made-up customer table: 15 columns of every kind that staged data has, the same for the same seed."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

import pyarrow as pa  # noqa: TID253
from faker import Faker

NEW_YEAR = date(2026, 1, 1)
"""Where made-up dates end. Faker would take the moment of the call, and another table would come of it."""
LOCALES = ("de_DE", "fr_FR", "es_ES", "en_IN", "pl_PL", "it_IT")
STATUSES = ("active", "closed", "pending", "blocked", "trial")
STRUCTURED = (
    "customer_id", "full_name", "email", "phone", "ssn", "credit_card", "iban", "ip", "city", "address",
    "amount", "created_at", "status",
)  # fmt: skip
TEXTS = ("notes", "payload")
CLEAN = (
    "The order was delayed by the supplier and will ship again.",
    "Asked for a refund of the last invoice; refund was granted.",
    "Prefers to be contacted in the morning, no calls after lunch.",
    "The extension of the contract is still open.",
    "Very happy with the service and the new dashboard.",
    "Complained twice about the packaging.",
    "Wants a larger plan, but only after the trial has ended.",
    "Password was reset, two-factor login is on now.",
)


def customers(rows: int, seed: int = 1) -> pa.Table:
    """Return a table of so many rows."""
    random = Random(seed)  # noqa: S311  # made-up data
    american, others = _faker("en_US", seed), [_faker(locale, seed) for locale in LOCALES]
    cities = [american.city() for _ in range(400)]
    people = [_person(random, american, others, cities, number) for number in range(rows)]
    schema = pa.schema(
        [
            ("customer_id", pa.int64()),
            *[(name, pa.string()) for name in STRUCTURED[1:10]],
            ("amount", pa.float64()),
            ("created_at", pa.timestamp("us")),
            ("status", pa.string()),
            ("notes", pa.string()),
            ("payload", pa.string()),
        ]
    )
    return pa.Table.from_pylist(people, schema=schema)


def _faker(locale: str, seed: int) -> Faker:
    fake = Faker(locale)
    fake.seed_instance(seed)
    return fake


def _person(
    random: Random, american: Faker, others: list[Faker], cities: list[str], number: int
) -> dict[str, Any]:
    fake = american if random.random() < 0.75 else random.choice(others)
    first, last = fake.first_name(), fake.last_name()
    created = datetime(2021, 1, 1) + timedelta(seconds=random.randrange(150_000_000))  # noqa: DTZ001  # no zone
    email, phone = american.email(), american.phone_number()
    return {
        "customer_id": 100_000 + number,
        "full_name": _name(random, first, last),
        "email": email,
        "phone": None if random.random() < 0.05 else phone,
        "ssn": american.ssn(),
        "credit_card": american.credit_card_number(),
        "iban": None if random.random() < 0.10 else others[0].iban(),
        "ip": american.ipv4(),
        "city": random.choice(cities),
        "address": american.address().replace("\n", ", "),
        "amount": round(random.uniform(1, 5_000), 2),
        "created_at": created,
        "status": random.choice(STATUSES),
        "notes": None if random.random() < 0.15 else _note(random, american, f"{first} {last}", email, phone),
        "payload": json.dumps(
            {
                "id": american.uuid4(),
                "contact": {"name": f"{first} {last}", "email": email, "phones": [phone]},
                "address": {"city": random.choice(cities), "zip": american.postcode()},
                "device": {"ip": american.ipv4(), "agent": american.user_agent()},
                "tags": random.sample(STATUSES, 2),
                "total": round(random.uniform(1, 900), 2),
            }
        ),
    }


def _name(random: Random, first: str, last: str) -> str:
    kind = random.random()
    if kind < 0.6:
        return f"{first} {last}"
    if kind < 0.75:
        return f"{last}, {first}"
    if kind < 0.85:
        return f"{first[0]}. {last}"
    return f"{first} {last}".upper()


def _note(random: Random, fake: Faker, name: str, email: str, phone: str) -> str:
    sentences = random.sample(CLEAN, random.randint(1, 3))
    if random.random() < 0.4:
        sentences[-1] = random.choice(
            (
                f"Spoke with {name} about the invoice on {fake.date(end_datetime=NEW_YEAR)}.",
                f"Reach {name} at {phone} or by mail to {email}.",
                f"My name is {name}, I live at {fake.street_address()} in {fake.city()}.",
                f"Card {fake.credit_card_number()} was declined, phone number is {phone}.",
                f"SSN {fake.ssn()} given by {fake.name()} last Tuesday.",
                f"Transfer to {fake.iban()} confirmed by {fake.name()} ({fake.company()}).",
            )
        )
    return " ".join(sentences)
