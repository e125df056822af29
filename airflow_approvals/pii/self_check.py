"""Whether the fast engine still finds what Presidio finds: asked at every start, and along the way if wanted.

A new version of Presidio, spaCy or a model cannot drift away silently: the first difference ends the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_approvals.core.errors import FindingsDifferError
from airflow_approvals.pii.engine import Spans, TextEngine, in_order
from airflow_approvals.pii.findings import Span

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

# Made up. Every pattern, context words near and far, sentences, other alphabets, structure.
SAMPLE: tuple[tuple[str, str], ...] = (
    ("full_name", "Maria Gonzalez-Smith"),
    ("full_name", "KOWALSKI, Zofia"),
    ("name", "Dr. J. R. Tolkien Jr."),
    ("city", "New Kevinburgh"),
    ("address", "786 Holly Square Suite 374, Sarahview, OK 37134"),
    ("email", "first.last+tag@mail.example.co.uk"),
    ("phone", "(212) 555-0188"),
    ("phone", "+44 20 7946 0958 ext. 12"),
    ("contact", "030 901820 oder 0171 2345678"),
    ("note", "Call me on 212-456-7890x123, my cell phone number."),
    ("ssn", "536-90-4399"),
    ("note", "His social security number was 536904399."),
    ("credit_card", "4111 1111 1111 1111"),
    ("payment", "Card 4012888888881881 (visa) was declined."),
    ("iban", "DE89370400440532013000"),
    ("note", "Transfer to GB29 NWBK 6016 1331 9268 19 from my bank."),
    ("ip", "192.168.0.1"),
    ("ip", "2001:db8::ff00:42:8329"),
    ("device", "00-B0-D0-63-C2-26"),
    ("id", "123e4567-e89b-12d3-a456-426614174000"),
    ("wallet", "16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ"),
    ("note", "Driver license A1234567 and passport 123456789, itin 911-70-1234."),
    ("account", "My bank account number is 945456787654."),
    ("note", "DEA certificate BB1388568 of the medical doctor."),
    ("nhs", "401-023-2137"),
    ("created", "2021-07-16 01:35:09"),
    ("created", "Born on the 3rd of May, 1984. Moved to Berlin in 1999."),
    ("amount", "4507.24"),
    ("id", "100000"),
    ("status", "pending"),
    ("url", "see https://www.example.com/path?q=1 or docs.example.org"),
    ("note", "Spoke with Anna Lee. The invoice of Tuesday was paid by Acme Corp in Paris"),
    ("note", "The American and the Spanish team met at 5 pm.\nNo one came."),
    ("note", "email email email email email email a@example.com"),
    ("payload", '{"contact": {"name": "Li Wei", "email": "li@example.com", "phones": ["363.508.3898"]}}'),
    ("payload", '{"zip": "38315", "device": {"ip": "212.239.238.194"}, "n": [1, 2.5, null]}'),
    ("note", "Zażółć gęślą jaźń, tel. \uff10\uff13\uff10 901820, José Núñez"),
    ("note", "山田太郎さんの電話番号は 03-1234-5678 です"),
    ("note", "  \t leading blanks, 12/05/2020, trailing  "),
    ("note", "x"),
    ("note", ""),
)


def check_sample(engine: TextEngine, analyzer: AnalyzerEngine, language: str) -> int:
    """Compare on made-up texts, and return how many; raise `FindingsDifferError` at the first difference."""
    by_column: dict[str, list[str]] = {}
    for column, text in SAMPLE:
        by_column.setdefault(column, []).append(text)
    for column, texts in by_column.items():
        for text, spans in zip(texts, engine.spans(texts, (column,)), strict=True):
            number = SAMPLE.index((column, text))
            check_text(analyzer, language, text, (column,), spans, f"self-check text {number}")
    return len(SAMPLE)


def check_text(
    analyzer: AnalyzerEngine,
    language: str,
    text: str,
    context: Sequence[str],
    spans: Spans,
    where: str,
    entities: frozenset[str] | None = None,
) -> None:
    """Raise `FindingsDifferError` unless these spans are what `AnalyzerEngine.analyze` finds."""
    expected = in_order(
        Span(result.entity_type, result.start, result.end, result.score)
        for result in analyzer.analyze(text, language, context=list(context))
        if entities is None or result.entity_type in entities
    )
    if expected != spans:
        missing = sorted({span.entity_type for span in set(expected) - set(spans)})
        extra = sorted({span.entity_type for span in set(spans) - set(expected)})
        raise FindingsDifferError(
            f"{where}: the fast scan differs from Presidio (missing {missing}, not expected {extra}); "
            "scan with fast=False, and report the versions of presidio-analyzer and spacy"
        )
