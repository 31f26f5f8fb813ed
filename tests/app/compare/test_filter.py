"""Rows of the table: filtered and ordered."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.views.compare.filter import filtered, ordered


def test_a_filter_keeps_rows_with_every_word_and_comparison() -> None:
    table = pd.DataFrame(
        {"trace": ["ddim-a", "ddim-b", "ddpm-c"], "gflops_per_step": [0.2, 0.3, 0.25], "fid": [9.0, 8, 7]}
    )

    def kept(question: str) -> list[str]:
        return filtered(table, question)["trace"].tolist()

    assert kept("") == table["trace"].tolist()
    assert kept("DDIM") == ["ddim-a", "ddim-b"]
    assert kept("gflops<0.3") == ["ddim-a", "ddpm-c"]
    assert kept("gflops≤0.3 fid>=8 ddim") == ["ddim-a", "ddim-b"]
    assert kept("fid=7") == ["ddpm-c"]
    assert kept("nothing") == []
    assert kept("nothing fid<9") == []
    with pytest.raises(ValueError, match="gflops_per_step, fid"):
        filtered(table, "seconds<1")


@given(st.lists(st.tuples(st.sampled_from(["b", "a", None]), st.one_of(st.none(), st.integers(0, 3))), min_size=1))
def test_the_order_is_that_of_the_column_and_leaves_equal_rows_alone(rows: list[tuple[str | None, int | None]]) -> None:
    table = pd.DataFrame(rows, columns=["word", "number"]).astype({"number": "float"})
    for column in table:
        for falling in (False, True):
            found = ordered(table, column, falling)
            values = found[column].dropna().tolist()
            assert values == sorted(values, reverse=falling)
            assert found[column].isna().tolist() == sorted(found[column].isna())  # the empty ones are last
            assert all(group.index.is_monotonic_increasing for _, group in found.groupby(column, dropna=False))
