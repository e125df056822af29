from __future__ import annotations

import pytest

from airflow_approvals.core.canonical import digest_of
from airflow_approvals.core.errors import InvalidRequestError
from airflow_approvals.core.model import from_json, to_json
from airflow_approvals.pii.findings import BatchFindings, ColumnFindings, Finding
from airflow_approvals.pii.report import ScanReport, Tally


def _batch(first_row: int, *found: tuple[int, str, float]) -> BatchFindings:
    findings = tuple(
        Finding(column="note", row=row, entity_type=entity, start=0, end=3, score=score)
        for row, entity, score in found
    )
    column = ColumnFindings(column="note", type="string", scanned=4, nulls=1, skipped=0, findings=findings)
    return BatchFindings(first_row=first_row, rows=5, columns=(column,))


def _report() -> ScanReport:
    batches = [
        _batch(0, (1, "PERSON", 0.85), (1, "PERSON", 0.4), (2, "URL", 0.5)),
        _batch(5, (6, "PERSON", 0.3)),
    ]
    return Tally().add_all(batches).report(engine="presidio", engine_digest="0" * 64)


def test_the_report_counts_findings_cells_shares_and_score_ranges() -> None:
    column = _report().columns[0]
    person = column.entities[0]
    assert (person.entity_type, person.findings, person.cells, person.share) == ("PERSON", 3, 2, 0.25)
    assert (person.score_min, person.score_max) == (0.3, 0.85)
    assert (column.scanned, column.nulls, column.cells_with_findings) == (8, 2, 3)


def test_the_report_survives_json_and_can_be_digested() -> None:
    report = _report()
    assert from_json(ScanReport, to_json(report)) == report
    assert len(digest_of(to_json(report))) == 64


@pytest.mark.parametrize("first_row", [0, 4, 6, 10])
def test_a_batch_that_is_counted_twice_or_left_out_is_refused(first_row: int) -> None:
    tally = Tally().add_all([_batch(0)])
    with pytest.raises(InvalidRequestError, match="in order"):
        tally.add(_batch(first_row))
