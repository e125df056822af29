"""What masking by a plan leaves behind, asked without any of its own code; and how much of it Presidio sees.

Two tables: the customers, of whose columns we know what is personal, and sentences of which we know every
place that is. A cell is residual if a word of its value is still in it. A value survives if a cell of any
column still holds all its words in a row: every value of a personal column, and all that a scan finds in the
columns that the plan masks, dates aside (they are few, and stand elsewhere by chance).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.masking.datasets import mask_dataset
from airflow_approvals.pii.masking.rules import LEAST_SCORE, MaskingRules, Treatment
from airflow_approvals.pii.planning import plan_masking
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.verify_datasets import verify_masked
from tests.bench.pii_planned import KEYS
from tests.pii.customers import customers
from tests.pii.sentences import Sentence, sentences

PERSONAL = ("full_name", "email", "phone", "ssn", "credit_card", "iban", "ip", "city", "address")
SHORTEST = 5  # letters and digits of a value that must not survive
LONGEST = 12  # words of a value
PLACEHOLDER = re.compile(r"<[A-Z_]+>")
WORD = re.compile(r"[^\W_]+")
Row = dict[str, Any]


def figures(rows: int, count: int) -> dict[str, Any]:
    """Return what is left behind in both tables, and recall, precision and false alarms beside Presidio's."""
    scanner = Scanner()
    presidio = Scanner(ScanConfig(typed=False, normalise_digits=False))
    drawn = sentences(count, seed=3)
    agents = customers(count, seed=341)["full_name"].to_pylist()
    tickets = [
        {"ticket": 100_000 + number, "agent": agent, "text": sentence.text}
        for number, (agent, sentence) in enumerate(zip(agents, drawn, strict=True))
    ]
    left, _ = _left_behind(scanner, customers(rows, seed=340).to_pylist(), PERSONAL)
    more, masked = _left_behind(scanner, tickets, ("agent",))
    left.update(more)
    found = {
        "residual_cells": left["residual"],
        "surviving_values": left["surviving"],
        "verification_leaks": left["verification"],
        "values_searched": left["searched"],
    }
    found |= _quality(drawn, [str(row["text"]) for row in masked], "")
    found |= _quality(drawn, [_by_presidio(presidio, one.text) for one in drawn], "peer_")
    ids = [100_000 + number for number in range(rows)]
    return found | {
        "ids_taken_for_dates": _dates_among(scanner, ids),
        "peer_ids_taken_for_dates": _dates_among(presidio, ids),
    }


def _left_behind(
    scanner: Scanner, table: list[Row], personal: Sequence[str]
) -> tuple[Counter[str], list[Row]]:
    """Mask a table by its plan; return what is left of it, and the masked rows."""
    import pyarrow as pa
    from pyarrow import parquet

    with tempfile.TemporaryDirectory(prefix="pii-bench-") as folder:
        source, target = str(Path(folder, "in.parquet")), str(Path(folder, "out.parquet"))
        parquet.write_table(pa.Table.from_pylist(table), source)
        rules = plan_masking(scanner, parquet.read_table(source).to_batches()).rules()
        mask_dataset(source, target, rules, KEYS, scanner)
        masked: list[Row] = parquet.read_table(target).to_pylist()
        report = verify_masked(source, target, rules, scanner, keys=KEYS)
    wanted = _values(scanner, table, rules, personal)
    surviving = {run for row in masked for cell in row.values() for run in _runs(cell)} & wanted
    residual = sum(
        not {word for word in _words(before[column]) if len(word) > 1}.isdisjoint(_words(after[column]))
        for before, after in zip(table, masked, strict=True)
        for column in personal
        if before[column] is not None
    )
    counts = Counter(
        residual=residual,
        surviving=len(surviving),
        verification=report.residual + len(report.broken),
        searched=len(wanted),
    )
    return counts, masked


def _values(scanner: Scanner, table: list[Row], rules: MaskingRules, personal: Sequence[str]) -> set[str]:
    texts = [str(row[column]) for row in table for column in personal if row[column] is not None]
    for rule in rules.columns:
        if rule.treatment in (Treatment.TEXT, Treatment.LEAVES):
            cells = {text for row in table for text in _texts(row[rule.column])}
            for text, spans in scanner.find(cells, (rule.column,)).items():
                texts += [
                    text[span.start : span.end]
                    for span in spans
                    if span.score >= LEAST_SCORE and span.entity_type != "DATE_TIME"
                ]
    forms = ("".join(_words(text)) for text in texts)
    return {form for form in forms if len(form) >= SHORTEST}


def _runs(cell: Any) -> Iterator[str]:
    """Yield every few words in a row of each text of a cell, joined."""
    for text in _texts(cell):
        words = _words(text)
        for first in range(len(words)):
            for last in range(first + 1, min(first + LONGEST, len(words)) + 1):
                yield "".join(words[first:last])


def _texts(cell: Any) -> Iterator[str]:
    if isinstance(cell, str) and cell[:1] in "{[" and cell:
        cell = json.loads(cell)
    if isinstance(cell, dict):
        for key, inner in cell.items():
            yield key
            yield from _texts(inner)
    elif isinstance(cell, list):
        for inner in cell:
            yield from _texts(inner)
    elif cell is not None:
        yield str(cell)


def _words(cell: Any) -> list[str]:
    plain = unicodedata.normalize("NFKD", PLACEHOLDER.sub(" ", str(cell)).casefold())
    return WORD.findall("".join(sign for sign in plain if not unicodedata.combining(sign)))


def _quality(drawn: Iterable[Sentence], masked: Sequence[str], prefix: str) -> dict[str, Any]:
    """Return recall by type (all of it masked, as whatever), precision, and alarms for nothing."""
    there: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    regions = right = words = 0
    for sentence, after in zip(drawn, masked, strict=True):
        words += len(sentence.text.split())
        places = _masked_places(sentence.text, after)
        covered = {place for start, end in places for place in range(start, end)}
        personal = {place for one in sentence.truths for place in range(one.start, one.end)}
        regions += len(places)
        right += sum(not personal.isdisjoint(range(start, end)) for start, end in places)
        for one in sentence.truths:
            there[one.entity_type] += 1
            signs = (place for place in range(one.start, one.end) if sentence.text[place].isalnum())
            hidden[one.entity_type] += covered.issuperset(signs)
    recalls = {
        f"{prefix}recall_{entity.lower()}": round(hidden[entity] / there[entity], 3)
        for entity in sorted(there)
    }
    return recalls | {
        f"{prefix}recall": round(hidden.total() / there.total(), 3),
        f"{prefix}precision": round(right / regions, 3) if regions else 1.0,
        f"{prefix}false_alarms_per_1000_words": round(1_000 * (regions - right) / words, 2),
    }


def _masked_places(text: str, masked: str) -> list[tuple[int, int]]:
    """Return which parts of a text placeholders stand for: what stands between them is what stood there."""
    kept = (re.escape(piece) for piece in PLACEHOLDER.split(masked))
    match = re.fullmatch("(.+?)".join(kept), text, re.DOTALL)
    if match is None:
        raise ValueError("a masked sentence holds what the sentence did not")
    return [match.span(number + 1) for number in range(len(match.groups()))]


def _by_presidio(presidio: Scanner, text: str) -> str:
    from presidio_anonymizer import AnonymizerEngine

    # Both packages have a result of their own, and the anonymizer takes the analyzer's.
    found: Any = presidio.analyzer.analyze(text, "en")
    engine: Any = AnonymizerEngine
    return str(engine().anonymize(text, found).text)


def _dates_among(scanner: Scanner, ids: list[int]) -> int:
    import pyarrow as pa

    batches = scanner.scan_batches([pa.record_batch({"id": pa.array(ids)})])
    dates = (one for found in batches for one in found.findings if one.entity_type == "DATE_TIME")
    return len({one.row for one in dates if one.score >= LEAST_SCORE})


if __name__ == "__main__":
    print(json.dumps(figures(*map(int, sys.argv[1:]))))
