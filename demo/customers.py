"""A customer list that looks real and is not: the same people on every machine."""

from __future__ import annotations

import csv
import random
from datetime import date, timedelta
from pathlib import Path

COLUMNS = ("customer_id", "name", "email", "phone", "city", "country", "signed_up", "internal_note")

_FIRST = [
    "Ada",
    "Bela",
    "Chidi",
    "Dina",
    "Emre",
    "Farah",
    "Goran",
    "Hana",
    "Ines",
    "Jomo",
    "Kaya",
    "Lars",
    "Mei",
    "Nils",
    "Olga",
    "Pia",
    "Quinn",
    "Rosa",
    "Sami",
    "Tove",
]
_LAST = [
    "Adler",
    "Brandt",
    "Costa",
    "Duarte",
    "Ekdal",
    "Ferri",
    "Gruber",
    "Haas",
    "Ibsen",
    "Jung",
    "Keller",
    "Lind",
    "Moreau",
    "Novak",
    "Okafor",
    "Petit",
]
_PLACES = (
    ("Lisboa", "PT"),
    ("Graz", "AT"),
    ("Malmö", "SE"),
    ("Kraków", "PL"),
    ("Gent", "BE"),
    ("Lyon", "FR"),
    ("Porto", "PT"),
    ("Bern", "CH"),
    ("Turku", "FI"),
    ("Aarhus", "DK"),
)
_NOTES = (
    "",
    "",
    "",
    "calls on Mondays",
    "prefers e-mail",
    "asked for a discount",
    "{first} {last} wants to be called, {phone}",
    "moved away from {city}; write to {email}",
)
_FIRST_DAY = date(2019, 1, 1)


def write_customers(path: Path, rows: int = 5_000) -> None:
    """Write `rows` synthetic customers as CSV; the same bytes every time."""
    dice = random.Random(20)  # noqa: S311  # reproducible, not secret
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for number in range(1, rows + 1):
            first, last = dice.choice(_FIRST), dice.choice(_LAST)
            city, country = dice.choice(_PLACES)
            email = f"{first}.{last}{number}@example.com".lower()
            phone = f"+00 555 {dice.randrange(10**6):06d}"
            signed_up = (_FIRST_DAY + timedelta(days=dice.randrange(2_500))).isoformat()
            note = dice.choice(_NOTES).format(first=first, last=last, city=city, email=email, phone=phone)
            writer.writerow((number, f"{first} {last}", email, phone, city, country, signed_up, note))
