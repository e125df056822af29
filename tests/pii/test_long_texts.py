"""A text may have a million characters, and tens of thousands of findings in it."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterable

from airflow_approvals.pii.boost import ContextBoost, Surroundings
from airflow_approvals.pii.cells import Gate
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.known_values import ValueIndex
from airflow_approvals.pii.masking.rules import ColumnRule, MaskingRules, Treatment
from airflow_approvals.pii.scanner import Scanner
from airflow_approvals.pii.verify import Verifier
from tests.pii.mask_samples import PatternFinder

WORDS = ("phone", "call")


def processor_seconds(work: Callable[[], None]) -> float:
    """Return what `work` takes, without collecting the garbage that other tests have left."""
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        gc.enable()


def test_context_is_looked_for_near_each_match_and_not_in_the_whole_text(scanner: Scanner) -> None:
    nlp = scanner.analyzer.nlp_engine.nlp["en"]  # type: ignore[attr-defined]  # of spaCy's engine alone
    boost = ContextBoost(scanner.analyzer.context_aware_enhancer, nlp, [WORDS])
    text = "my phone was " + "17 " * 40_000
    around = Surroundings(text, nlp.make_doc(text))

    def look() -> None:
        boosted = [boost.by_text(WORDS, around, 13 + 3 * number) for number in range(5_000)]
        assert boosted[0]
        assert not boosted[-1]

    assert processor_seconds(look) < 3  # it took more than ten


def test_a_long_text_with_many_findings_is_held_against_its_source_in_time_that_grows_with_it() -> None:
    class Everywhere(PatternFinder):
        def find(
            self, texts: Iterable[str], context: tuple[str, ...], gate: Gate = Gate.ANYTHING
        ) -> dict[str, list[Span]]:
            spans = re.compile(r"<PERSON> \w+")
            return {
                text: [Span("PERSON", *found.span(), 0.85) for found in spans.finditer(text)]
                for text in texts
            }

    def seconds(findings: int) -> float:
        before = " ".join(f"Name{number} went" for number in range(findings))
        after = before.replace("went", "gone")
        rules = MaskingRules(columns=(ColumnRule(column="a", treatment=Treatment.TEXT),))

        def check() -> None:
            verifier = Verifier(rules, ValueIndex(), Everywhere())
            verifier.check_batch({"a": [before]}, {"a": [re.sub(r"Name\d+", "<PERSON>", after)]})
            assert verifier.report().verified

        return min(processor_seconds(check) for _ in range(3))  # what else runs only adds to it

    assert seconds(16_000) < 20 * max(seconds(2_000), 0.02)  # 8 times as much; it took 64 times as long
