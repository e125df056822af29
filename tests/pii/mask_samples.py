"""Keys, a finder and rules for the tests of masking and verification."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hypothesis import settings

from airflow_approvals.pii.cells import Gate
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import Encrypt, Fake, Pseudonym, ShiftDate
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment

relaxed = settings(deadline=None, max_examples=50)  # the first call may load a library
KEYS = KeyRing(domains={"customers": b"k" * 32, "others": b"o" * 32})
OTHER_KEYS = KeyRing(domains={"customers": b"K" * 32, "others": b"O" * 32})

PATTERNS = {
    "EMAIL_ADDRESS": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w"),
    "URL": re.compile(r"(?<=@)[\w-]+\.\w+"),
    "CREDIT_CARD": re.compile(r"\b\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}\b"),
    "PERSON": re.compile(r"\bMr\. [A-Z]\w+"),
}


class PatternFinder:
    """A finder that needs no model: the engine's port with patterns behind it."""

    entity_types = frozenset({*PATTERNS, "PHONE_NUMBER", "LOCATION", "DATE_TIME", "IBAN_CODE"})

    def __init__(self) -> None:
        self.looked_at: list[tuple[tuple[str, ...], str]] = []

    def find(
        self, texts: Iterable[str], context: tuple[str, ...], gate: Gate = Gate.ANYTHING
    ) -> Mapping[str, Sequence[Span]]:
        found = {}
        for text in texts:
            self.looked_at.append((context, text))
            found[text] = [
                Span(entity, match.start(), match.end(), 0.85)
                for entity, pattern in PATTERNS.items()
                for match in pattern.finditer(text)
            ]
        return found


def customer_rules() -> MaskingRules:
    """Return rules that use every treatment, for the columns of `customer_columns`."""
    pseudonym = Pseudonym(domain="customers")
    return MaskingRules(
        subject_column="id",
        columns=(
            ColumnRule(column="id", treatment=Treatment.LEAVE),
            ColumnRule(column="name", treatment=Treatment.CELL, entity_type="PERSON", operator=pseudonym),
            ColumnRule(
                column="email",
                treatment=Treatment.CELL,
                entity_type="EMAIL_ADDRESS",
                operator=Fake(domain="customers"),
            ),
            ColumnRule(
                column="card",
                treatment=Treatment.CELL,
                entity_type="CREDIT_CARD",
                operator=Encrypt(domain="customers"),
                becomes="string",
            ),
            ColumnRule(
                column="born",
                treatment=Treatment.CELL,
                entity_type="DATE_TIME",
                operator=ShiftDate(domain="customers"),
            ),
            ColumnRule(column="note", treatment=Treatment.TEXT, by_entity={"PERSON": pseudonym}),
            ColumnRule(column="payload", treatment=Treatment.LEAVES),
            ColumnRule(column="secret", treatment=Treatment.DROP, entity_type="PASSWORD"),
        ),
    )
