"""Downloads of a figure's or table's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import streamlit as st

from app.widgets.figures import A, axis, packed, spec
from app.widgets.plot import download_latex


def test_a_table_is_downloaded_as_latex_with_its_names_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(st, "download_button", lambda label, data, name, *rest, **more: given.update({name: data()}))
    download_latex(lambda: pd.DataFrame({"run_name": ["a_b"], "gflops": [0.123456], "speed": [None]}), "all runs")
    lines = given["all-runs.tex"].decode().splitlines()
    assert lines[0] == r"\begin{tabular}{lrl}"
    assert r"run\_name & gflops & speed \\" in lines
    assert r"a\_b & 0.1235 & -- \\" in lines


def test_a_curve_of_one_point_is_a_mark_and_others_stay() -> None:
    curves = [{"mode": "lines", "y": y, "line": {"color": A}} for y in ([1.0], [1.0, 2.0], packed(np.ones(1)), [None])]
    figure = spec(curves, axis("x"), axis("y"))
    assert [trace["mode"] for trace in figure["data"]] == ["markers", "lines", "markers", "lines"]
    assert figure["data"][0]["marker"]["color"] == A
