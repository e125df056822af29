"""Whether the fast scan finds what `AnalyzerEngine.analyze` finds: cells of a table, and mutated ones."""

from __future__ import annotations

import json
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from airflow_approvals.pii.cells import texts_of_batch
from airflow_approvals.pii.config import ScanConfig
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.scanner import Scanner
from tests.pii.customers import customers

FUZZ = " \n\t.,;:-/\"'(){}[]@+#x\x0b\u00a0\u200b\uff11é"
KEYWORDS = (
    "email",
    "phone number",
    "ssn",
    "card",
    "iban",
    "date of birth",
    "passport",
    "ip",
    "driver license",
)
PROCESSES = 2


def figures(rows: int, fuzzed: int) -> dict[str, int]:
    """Count the texts whose findings (type, start, end, score) are not Presidio's."""
    numbers = range(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        counts = list(pool.map(_count, [rows] * PROCESSES, [fuzzed // PROCESSES] * PROCESSES, numbers))
    return {
        "exact_compared": sum(cells for cells, _, _ in counts),
        "exact_compared_fuzzed": sum(fuzzed for _, fuzzed, _ in counts),
        "exact_differences": sum(differing for _, _, differing in counts),
    }


def _count(rows: int, fuzzed: int, number: int) -> tuple[int, int, int]:
    """Compare one process's share of the rows, and as many mutated texts."""
    scanner = Scanner(ScanConfig(typed=False, normalise_digits=False))
    compared = differing = 0
    sample: list[str] = []
    share = -(-rows // PROCESSES)
    table = customers(rows, seed=77).slice(number * share, share).combine_chunks()
    for column in texts_of_batch(table.to_batches()[0], typed=False):
        for group in column.groups:
            texts = list(group.places)
            sample += texts[:: max(1, len(texts) // 400)]
            compared += len(texts)
            differing += _differing(scanner, texts, group.context)
    dice = random.Random(number)  # noqa: S311  # repeatable
    mutated: dict[str, None] = {}
    while len(mutated) < fuzzed:
        mutated[_mutated(dice.choice(sample), dice)] = None
    differing += _differing(scanner, list(mutated), ("field",))
    return compared, len(mutated), differing


def _differing(scanner: Scanner, texts: list[str], context: tuple[str, ...]) -> int:
    found = scanner.find(texts, context)
    return sum(set(found[text]) != _presidio_spans(scanner, text, context) for text in texts)


def _presidio_spans(scanner: Scanner, text: str, context: tuple[str, ...]) -> set[Span]:
    results = scanner.analyzer.analyze(text, "en", context=list(context))
    return {Span(result.entity_type, result.start, result.end, result.score) for result in results}


def _mutated(text: str, dice: random.Random) -> str:
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(text) + 1)
        changes = (
            text[:place] + dice.choice(FUZZ) + text[place:],
            text[:place] + text[place + 1 :],
            f"{dice.choice(KEYWORDS)} {text}",
            f"{text} {dice.choice(KEYWORDS)}: {text[:place]}",
            text.upper(),
            f"{text[:place]}. {text[place:]}",
            text[place:] + text[:place],
        )
        text = dice.choice(changes)
    return text


if __name__ == "__main__":
    print(json.dumps(figures(*map(int, sys.argv[1:]))))
