"""A masking plan drawn up from a sample: the type gate, a vote of sampled cells, and the column's name.

A column in which most cells are one thing is masked cell by cell, found there or not: a name that the model
misses is masked with the others. Free text and nested values are searched. What the sample says nothing about
is searched as well: only a column that shows no sign of personal data in enough cells is left alone, and the
plan says so.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from statistics import median
from typing import Any

from airflow_approvals.core.errors import CellTooLongError, SourceEmptyError
from airflow_approvals.pii.arrow_values import python_values
from airflow_approvals.pii.cells import LONGEST_CELL, Gate, text_of
from airflow_approvals.pii.findings import Span
from airflow_approvals.pii.masking.leaves import Leaf, parse_json, rebuild
from airflow_approvals.pii.masking.operators import Operator, Replace
from airflow_approvals.pii.masking.rules import ANY, LEAST_SCORE, Treatment, check_types
from airflow_approvals.pii.masking.texts import Finder
from airflow_approvals.pii.plan import MaskingPlan, PlannedColumn, PlannedLeaf

SAMPLE = 256  # rows; 50 cells name the right type of every column of notes/pii.md in 300 of 300 draws
ENOUGH = 20  # cells, for a column to be left alone
MOST_OF_A_CELL = 0.6  # of its characters
VOTE = 0.2  # of the sampled cells
A_FEW = 0.05
CERTAIN = 0.8  # a checksum, or words beside it: what counts in numbers that are left alone
VAGUE = {"DATE_TIME": 0.4, "URL": 0.4, "NRP": 0.5, "LOCATION": 0.8}  # what other things are taken for
NAMES: tuple[tuple[str, str], ...] = (  # as `_plain_name` has them
    (r"e?_?mail(_(addr(ess)?|id))?", "EMAIL_ADDRESS"),
    (r"(phone|mobile|cell|telephone|fax|msisdn)(_(no|num|number))?", "PHONE_NUMBER"),
    (r"ssn|social_?security", "US_SSN"),
    (r"(credit_?)?card(_?(no|num|number))?|cc|pan", "CREDIT_CARD"),
    (r"iban", "IBAN_CODE"),
    (r"ip(_?addr(ess)?)?", "IP_ADDRESS"),
    (r"(user_?)?name", "PERSON"),
    (r"city|town|address|street|addr|zip|zipcode|postcode|postal_?code", "LOCATION"),
    (r"(date_?of_?)?birth(_?(date|day))?|dob|birthday", "DATE_TIME"),
    (r"passport(_?(no|num|number))?", "US_PASSPORT"),
)
PERSONS = (
    r"(first|last|full|sur|given|family|middle|maiden|customer|patient|employee|contact)_?name"
    r"|fname|lname|forename"
)
"""Nobody has such a column for anything else, and models hardly know a name alone, least in other scripts."""


def plan_masking(
    finder: Finder,
    batches: Iterable[Any],
    *,
    operators: Mapping[str, Operator] | None = None,
    otherwise: Operator | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> MaskingPlan:
    """Return a plan for a table, from `sample` of its rows; the same rows and seed give the same plan.

    `operators` says by entity type what stands where a value stood, `otherwise` for all other types.
    Raise `SourceEmptyError` where there is no row, `InvalidRequestError` for an operator of no known type.
    """
    check_types("operators", operators or (), finder.entity_types | {entity for _, entity in NAMES})
    table = _sampled(batches, sample, seed)
    draft = _Draft(finder=finder, operators=dict(operators or {}), otherwise=otherwise or Replace())
    return MaskingPlan(
        columns=tuple(draft.column(name, table.column(name).combine_chunks()) for name in table.column_names),
        sampled_rows=table.num_rows,
    )


@dataclass(frozen=True, kw_only=True)
class _Vote:
    """What the cells of one column or leaf seem to be."""

    cells: int
    entity_type: str = ""  # of most cells, as a whole
    share: float = 0.0
    found: float = 0.0  # share of cells in which anything was found
    prose: bool = False
    has_words: bool = False  # not numbers alone

    @property
    def words(self) -> str:
        seen = f"{self.cells} sampled cells, {self.found:.0%} with findings"
        return f"{seen}, {self.share:.0%} are {self.entity_type} as a whole" if self.entity_type else seen


@dataclass(frozen=True, kw_only=True)
class _Draft:
    finder: Finder
    operators: dict[str, Operator]
    otherwise: Operator

    def column(self, name: str, array: Any) -> PlannedColumn:
        try:
            return self._column(name, array)
        except CellTooLongError:
            because = f"texts of more than {LONGEST_CELL:,} characters, which nothing can search"
            return PlannedColumn(column=name, type=str(array.type), treatment=Treatment.DROP, because=because)

    def _column(self, name: str, array: Any) -> PlannedColumn:
        import pyarrow as pa

        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        values = [value for value in python_values(array, name) if value is not None]
        shown: dict[str, Any] = {"column": name, "type": str(kind)}
        if pa.types.is_null(kind) or pa.types.is_boolean(kind) or pa.types.is_duration(kind):
            return PlannedColumn(**shown, treatment=Treatment.LEAVE, because=f"{kind} has no text")
        if pa.types.is_temporal(kind):
            return self._time(name, shown)
        if pa.types.is_nested(kind):
            return self._nested(name, values, shown)
        documents = [parse_json(value) for value in values] if pa.types.is_string(kind) else []
        if values and sum(one is not None for one in documents) >= 0.9 * len(values):
            return self._nested(name, [one for one in documents if one is not None], shown)
        if not _is_text_or_number(kind):
            return self._bytes(name, values, shown)
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        return self._plain(name, values, shown, becomes="string" if numeric else None)

    def _time(self, name: str, shown: dict[str, Any]) -> PlannedColumn:
        if _hint(name) != "DATE_TIME":
            return PlannedColumn(
                **shown,
                treatment=Treatment.LEAVE,
                leave_entities=("DATE_TIME",),
                because="a time, and not a birth by its name",
            )
        return PlannedColumn(
            **shown,
            treatment=Treatment.CELL,
            entity_type="DATE_TIME",
            operator=self._operator("DATE_TIME"),
            becomes="string",
            because="a birth, by its name",
        )

    def _plain(
        self, name: str, values: Sequence[Any], shown: dict[str, Any], *, becomes: Any = None
    ) -> PlannedColumn:
        vote = self._vote(values, (name,))
        entity = self._whole(vote, _hint(name), name)
        if entity:
            return PlannedColumn(
                **shown,
                treatment=Treatment.CELL,
                entity_type=entity,
                operator=self._operator(entity),
                becomes=becomes,
                because=vote.words + (", and its name says so" if _hint(name) == entity else ""),
            )
        if becomes and any(map(_is_fraction, values)):
            # One in ten fractions has the check digit of a card.
            because = f"{vote.words}; fractions"
            return PlannedColumn(**shown, treatment=Treatment.LEAVE, leave_entities=(ANY,), because=because)
        if becomes:
            # Some numbers look like a phone's by chance; a card among them is none, and must not pass.
            return PlannedColumn(**shown, treatment=Treatment.LEAVE, least_score=CERTAIN, because=vote.words)
        if not vote.found and vote.cells >= ENOUGH and not vote.prose and not _hint(name):
            return PlannedColumn(**shown, treatment=Treatment.LEAVE, because=vote.words)
        return PlannedColumn(
            **shown,
            treatment=Treatment.TEXT,
            by_entity=self.operators,
            otherwise=self.otherwise,
            because=vote.words + (", free text" if vote.prose else ""),
        )

    def _bytes(self, name: str, values: Sequence[Any], shown: dict[str, Any]) -> PlannedColumn:
        """Bytes are left alone where they are text without findings; in what is no text nothing is found."""
        vote = self._vote(values, (name,))
        entity = self._whole(vote, _hint(name), name)
        if entity:
            return PlannedColumn(
                **shown,
                treatment=Treatment.CELL,
                entity_type=entity,
                operator=self._operator(entity),
                becomes="string",
                because=vote.words,
            )
        if vote.cells == len(values) >= ENOUGH and not vote.found and not vote.prose:
            return PlannedColumn(**shown, treatment=Treatment.LEAVE, because=vote.words)
        return PlannedColumn(
            **shown,
            treatment=Treatment.DROP,
            because=f"{vote.words}; bytes, {len(values) - vote.cells} of {len(values)} sampled ones no text",
        )

    def _nested(self, name: str, values: Sequence[Any], shown: dict[str, Any]) -> PlannedColumn:
        leaves: dict[str, tuple[tuple[str, ...], list[Any]]] = {}

        def note(leaf: Leaf) -> Any:
            if not leaf.is_key and leaf.value is not None:
                leaves.setdefault(leaf.path, (leaf.context, []))[1].append(leaf.value)
            return leaf.value

        for value in values:
            rebuild(value, note, (name,))
        planned = []
        for path, (context, found) in sorted(leaves.items()):
            hint = _hint(context[-1]) if len(context) > 1 else None
            if all(isinstance(value, (date, time)) for value in found) and hint != "DATE_TIME":
                planned.append(PlannedLeaf(path=path))  # a time, and not a birth by its name
            elif entity := self._whole(self._vote(found, context), hint, context[-1]):
                planned.append(PlannedLeaf(path=path, entity_type=entity, operator=self._operator(entity)))
        return PlannedColumn(
            **shown,
            treatment=Treatment.LEAVES,
            by_entity=self.operators,
            otherwise=self.otherwise,
            leaves=tuple(planned),
            because=f"{len(values)} sampled documents, {len(leaves)} kinds of leaves",
        )

    def _vote(self, values: Sequence[Any], context: tuple[str, ...]) -> _Vote:
        texts: list[tuple[str, Gate]] = []
        for value in values:
            text, gate = text_of(value)
            if text:
                texts.append((text, gate))
        found: dict[tuple[str, Gate], Sequence[Span]] = {}
        for gate in {gate for _, gate in texts}:
            spans = self.finder.find([text for text, its in texts if its is gate], context, gate)
            found.update({(text, gate): one for text, one in spans.items()})
        whole: dict[str, float] = {}
        cells: dict[str, int] = {}
        any_found = 0
        for text, gate in texts:
            strong = [span for span in found[text, gate] if span.score >= LEAST_SCORE]
            any_found += bool(strong)
            for entity, score in _as_whole(text, strong).items():
                whole[entity] = whole.get(entity, 0.0) + score * VAGUE.get(entity, 1.0)
                cells[entity] = cells.get(entity, 0) + 1
        if not texts:
            return _Vote(cells=0, has_words=True)
        best = max(whole, key=lambda entity: (whole[entity], entity), default="")
        return _Vote(
            cells=len(texts),
            entity_type=best,
            share=cells.get(best, 0) / len(texts),
            found=any_found / len(texts),
            prose=_is_prose([text for text, _ in texts]),
            has_words=any(map(str.isalpha, "".join(text for text, _ in texts))),
        )

    def _whole(self, vote: _Vote, hint: str | None, name: str) -> str:
        """Return the entity type as which whole cells are masked, "" for none."""
        if vote.prose:
            return ""
        if vote.has_words and _is_named(PERSONS, name):
            return "PERSON"
        if hint and vote.found >= A_FEW:
            return hint
        return vote.entity_type if vote.share >= VOTE else ""

    def _operator(self, entity: str) -> Operator:
        return self.operators.get(entity, self.otherwise)


def _is_text_or_number(kind: Any) -> bool:
    import pyarrow as pa

    tests = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
        pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _as_whole(text: str, spans: Sequence[Span]) -> dict[str, float]:
    """Return the best score of each type that stands for most of a text."""
    least = MOST_OF_A_CELL * len(text.strip())
    best: dict[str, float] = {}
    for span in spans:
        if span.end - span.start >= least:
            best[span.entity_type] = max(best.get(span.entity_type, 0.0), span.score)
    return best


def _is_prose(texts: Sequence[str]) -> bool:
    """Tell whether texts are sentences: several words, most of them in lower case."""
    words = [text.split() for text in texts]
    if median(map(len, words)) < 4:
        return False
    every = [word for several in words for word in several]
    return sum(word.strip(".,;:!?()").islower() for word in every) > 0.5 * len(every)


def _is_fraction(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and not value.is_integer()


def _hint(name: str) -> str | None:
    if _is_named(PERSONS, name):
        return "PERSON"
    return next((entity for pattern, entity in NAMES if _is_named(pattern, name)), None)


def _is_named(pattern: str, name: str) -> bool:
    return bool(re.fullmatch(rf"(?:\w+_)?(?:{pattern})(?:_?\d+)?", _plain_name(name)))


def _plain_name(name: str) -> str:
    """Return a column's name in one spelling: `homePhone`, `home phone` and `home.phone` as `home_phone`."""
    return re.sub(r"[ .:-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower()


def _sampled(batches: Iterable[Any], rows: int, seed: int) -> Any:
    """Return `rows` rows from all over the table: each has the same chance, whatever their number."""
    import pyarrow as pa

    dice = random.Random(seed)  # noqa: S311  # a sample that can be drawn again
    kept: list[Any] = []
    seen = 0
    for batch in batches:
        chosen: dict[int, int] = {}  # place in the sample, row in the batch
        for row in range(batch.num_rows):
            place = seen if seen < rows else dice.randrange(seen + 1)
            if place < rows:
                chosen[place] = row
            seen += 1
        if chosen:
            copied = _copied(batch, chosen.values())
            for number, place in enumerate(chosen):
                kept[place : place + 1] = [copied.slice(number, 1)]
    if not kept:
        raise SourceEmptyError(
            "there is no row to plan from; expected at least one; stage data, or write a plan"
        )
    return pa.concat_tables(kept)


def _copied(batch: Any, rows: Iterable[int]) -> Any:
    """Return a few rows as a table of their own: a slice would keep the whole batch in memory."""
    import pyarrow as pa

    slices = [batch.slice(row, 1) for row in rows]
    sink = pa.BufferOutputStream()
    try:
        with pa.ipc.new_stream(sink, batch.schema) as writer:  # knows every type; `take` does not
            for one in slices:
                writer.write_batch(one)
    except pa.ArrowInvalid:  # nested more than 64 levels deep
        return pa.Table.from_batches(slices)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
