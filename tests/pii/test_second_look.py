from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

import pytest

from airflow_approvals.pii.cells import Gate
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import Fake, Mask, Operator, Pseudonym, Redact, Replace
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.masking.tables import TableMasker

KEYS = KeyRing(domains={"people": b"p" * 32})
MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
OPERATORS: dict[str, Operator] = {
    "fake": Fake(domain="people"),
    "mask": Mask(keep_last=4),
    "pseudonym": Pseudonym(domain="people"),
    "redact": Redact(),
    "replace": Replace(),
}


class LateFinder:
    """Finds a name only where the real address before it is gone, as a model does that reads anew."""

    entity_types = frozenset({"EMAIL_ADDRESS", "PERSON"})

    def find(
        self, texts: Iterable[str], context: tuple[str, ...], gate: Gate = Gate.ANYTHING
    ) -> Mapping[str, Sequence[Span]]:
        found: dict[str, Sequence[Span]] = {}
        for text in texts:
            spans = [Span("EMAIL_ADDRESS", *match.span(), 1.0) for match in MAIL.finditer(text)]
            if "@real.org" not in text:
                spans += [Span("PERSON", *match.span(), 0.85) for match in re.finditer("Zed", text)]
            found[text] = spans
        return found


def _masked(value: str, operator: Operator, treatment: Treatment) -> str:
    rule = ColumnRule(column="note", treatment=treatment, by_entity={"EMAIL_ADDRESS": operator})
    masker = TableMasker(MaskingRules(columns=(rule,)), KEYS, LateFinder())
    (masked,) = masker.mask_columns({"note": [value]})["note"]
    return str(masked)


def _fake_alone(operator: Operator) -> str:
    return _masked("zed@real.org", operator, Treatment.TEXT)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_what_is_seen_only_after_masking_is_masked_and_what_masking_wrote_is_left(operator: Operator) -> None:
    masked = _masked("Mail zed@real.org, and Zed, and zed@real.org.", operator, Treatment.TEXT)
    made = _fake_alone(operator)
    assert masked == f"Mail {made}, and <PERSON>, and {made}."


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_so_it_is_with_every_leaf_of_a_json_text(operator: Operator) -> None:
    value = json.dumps({"a": ["zed@real.org", "Mail zed@real.org and Zed"], "b": 1, "c": "Zed"})
    made = _fake_alone(operator)
    assert json.loads(_masked(value, operator, Treatment.LEAVES)) == {
        "a": [made, f"Mail {made} and <PERSON>"],
        "b": 1,
        "c": "<PERSON>",
    }
