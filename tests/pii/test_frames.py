"""Data frames: masked in memory, verified, and what was given stays as it was."""

from __future__ import annotations

from typing import Any

import pandas as pd  # noqa: TID253
import pytest

from airflow_approvals.core.errors import (
    ApprovalsError,
    InvalidRequestError,
    PiiFoundError,
    SchemaMismatchError,
    SourceEmptyError,
    SourceUnreadableError,
)
from airflow_approvals.pii.frames import check_clean_frame, mask_pii, scan_pii
from airflow_approvals.pii.masking.keys import KeyRing
from airflow_approvals.pii.masking.operators import Pseudonym, Replace
from airflow_approvals.pii.masking.rules import Treatment
from airflow_approvals.pii.plan import MaskingPlan, PlannedColumn
from airflow_approvals.pii.scanner import Scanner

ROWS = 40
KEYS = KeyRing(domains={"people": b"k" * 32})


def people() -> pd.DataFrame:
    index = [7 * number for number in range(ROWS)]
    mails = [f"ada.lovelace{number}@example.com" for number in range(ROWS)]
    return pd.DataFrame(
        {
            "id": range(ROWS),
            "email": [None if number % 5 == 0 else mail for number, mail in enumerate(mails)],
            "kind": pd.Categorical([mails[number % 3] for number in range(ROWS)]),
            "note": [f"wrote to {mails[(number + 1) % ROWS]} again" for number in range(ROWS)],
            "score": [number / 7 for number in range(ROWS)],
            "seen": pd.array([None if number % 3 else number for number in range(ROWS)], dtype="Int64"),
            "at": pd.date_range("2024-01-01", periods=ROWS, tz="UTC"),
        },
        index=index,
    )


def test_a_masked_frame_has_the_shape_of_the_one_that_was_given(scanner: Scanner) -> None:
    frame, before = people(), people()
    masked = mask_pii(frame, otherwise=Pseudonym(domain="people"), keys=KEYS, scanner=scanner)
    pd.testing.assert_frame_equal(frame, before)
    assert list(masked.columns) == list(frame.columns)
    assert masked.index.equals(frame.index)
    assert (masked.isna() == frame.isna()).all().all()
    for name in ("id", "score", "seen", "at"):
        pd.testing.assert_series_equal(masked[name], frame[name])
    assert masked["email"].dtype == frame["email"].dtype
    assert isinstance(masked["kind"].dtype, pd.CategoricalDtype)
    assert "example.com" not in masked.to_csv()


def test_a_value_is_the_same_token_wherever_it_stands(scanner: Scanner) -> None:
    masked = mask_pii(people(), otherwise=Pseudonym(domain="people"), keys=KEYS, scanner=scanner)
    assert masked["email"].iloc[7] in masked["note"].iloc[6]


def test_a_masked_frame_says_that_it_is_verified(scanner: Scanner) -> None:
    report = mask_pii(people(), scanner=scanner).attrs["pii"]
    assert (report["verified"], report["residual"]) == (True, 0)
    assert report["rows"] == ROWS
    assert len(report["plan_digest"]) == 64


def test_what_else_a_frame_carries_with_it_does_not_go_along(scanner: Scanner) -> None:
    frame = people()
    frame.attrs["owner"] = "ada.lovelace@example.com"
    assert list(mask_pii(frame, scanner=scanner).attrs) == ["pii"]


def test_a_frame_is_not_clean_for_what_its_index_hides(scanner: Scanner) -> None:
    with pytest.raises(InvalidRequestError, match="reset_index"):
        scan_pii(pd.DataFrame({"n": [1]}, index=["ada@example.com"]), scanner=scanner)


def test_a_scan_counts_and_a_check_refuses(scanner: Scanner) -> None:
    report = scan_pii(people(), scanner=scanner)
    counts = {
        column.column: {one.entity_type: one.cells for one in column.entities} for column in report.columns
    }
    assert counts["email"]["EMAIL_ADDRESS"] == ROWS - ROWS // 5
    with pytest.raises(PiiFoundError, match="EMAIL_ADDRESS") as caught:
        check_clean_frame(report)
    assert "lovelace" not in str(caught.value)
    check_clean_frame(scan_pii(pd.DataFrame({"country": ["x", "y"]}), scanner=scanner))


def _plan(*names: str) -> MaskingPlan:
    return MaskingPlan(
        columns=tuple(
            PlannedColumn(
                column=name,
                treatment=Treatment.CELL,
                entity_type="EMAIL_ADDRESS",
                operator=Replace(),
            )
            for name in names
        )
    )


BAD_FRAMES: dict[str, tuple[Any, type[ApprovalsError]]] = {
    "no rows": (pd.DataFrame({"email": []}, dtype="object"), SourceEmptyError),
    "numbers for names": (pd.DataFrame([["ada@example.com"]]), InvalidRequestError),
    "one name twice": (pd.DataFrame([["a", "b"]], columns=["email", "email"]), InvalidRequestError),
    "values of several types": (pd.DataFrame({"email": ["ada@example.com", 7]}), SourceUnreadableError),
    "names in the index": (pd.DataFrame({"email": ["a"]}, index=["ada@example.com"]), InvalidRequestError),
    "names in a level of the index": (
        pd.DataFrame({"email": ["a"]}, index=pd.MultiIndex.from_tuples([(1, "ada@example.com")])),
        InvalidRequestError,
    ),
    "cards in the index": (
        pd.DataFrame({"email": ["a"]}, index=pd.Index([4111111111111111], name="card")),
        InvalidRequestError,
    ),
    "columns without a rule": (pd.DataFrame({"email": ["a"], "more": ["b"]}), SchemaMismatchError),
}


@pytest.mark.parametrize(("frame", "error"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_frame_that_cannot_be_masked_is_refused_by_name(
    scanner: Scanner, frame: pd.DataFrame, error: type[ApprovalsError]
) -> None:
    with pytest.raises(error) as caught:
        mask_pii(frame, plan=_plan("email"), scanner=scanner)
    assert "ada@example.com" not in str(caught.value)
