"""What each step of a plan contributes (`deediff search --steps-of`): the plan with one step changed, and the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from app.widgets.figures import A, B, Spec, axis, spec
from deediff.errors import UserError
from deediff.plans.file import read_validation

CHANGES = {"made_full": ("full network instead", A), "left_out": ("without this step", B)}
HEIGHT = 320


@dataclass(frozen=True)
class Contributions:
    """Paired differences of the changed plans from the plan."""

    metric: str
    images: int
    seed: int
    rows: Sequence[Mapping[str, Any]]  # per step: timestep, step, and per change value, low and high of every metric

    def change(self, row: Mapping[str, Any], name: str) -> Mapping[str, float] | None:
        """Of the metric, by one of CHANGES; None where the change gives no valid plan."""
        found: Mapping[str, float] | None = row[name] and row[name][self.metric]
        return found


def read_contributions(file: Path) -> Contributions | None:
    """Of a plan file; None where they were not measured. Raises UserError when the file is damaged."""
    try:
        found = (read_validation(file) or {}).get("contributions")
        if found is None:
            return None
        read = Contributions(str(found["metric"]), int(found["images"]), int(found["seed"]), list(found["rows"]))
        for row in read.rows:
            [read.change(row, name) for name in CHANGES]
            int(row["timestep"]), str(row["step"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{file} holds unreadable contributions ({error}): measure them again") from None
    return read


def changed_steps(found: Contributions) -> Spec:
    """Two bars per step: the metric's change when it is made full, and when it is left out."""
    names = [f"{row['timestep']}<br>{row['step']}" for row in found.rows]
    data = []
    for key, (name, color) in CHANGES.items():
        changes = [found.change(row, key) for row in found.rows]
        data.append(
            {
                "type": "bar",
                "name": name,
                "x": names,
                "y": [None if change is None else change["value"] for change in changes],
                "error_y": {
                    "array": [0 if c is None else c["high"] - c["value"] for c in changes],
                    "arrayminus": [0 if c is None else c["value"] - c["low"] for c in changes],
                    "symmetric": False,
                    "thickness": 1,
                },
                "marker": {"color": color},
                "hovertemplate": f"%{{x}}<br>{name}: %{{y:+.3f}}<extra></extra>",
            }
        )
    y = axis(f"change of {found.metric}", showgrid=True, zeroline=True)
    return spec(data, axis("step: timestep, and what it does"), y, height=HEIGHT, showlegend=True, barmode="group")


def changes_table(found: Contributions) -> pd.DataFrame:
    """A row per step and change, with the metric's value, low and high."""
    rows = [(row, key, found.change(row, key)) for row in found.rows for key in CHANGES]
    return pd.DataFrame(
        [
            {"timestep": row["timestep"], "step": row["step"], "change": key, **change}
            for row, key, change in rows
            if change
        ]
    )


def changes_text(found: Contributions) -> pd.DataFrame:
    """A row per step, each change as text."""
    return pd.DataFrame([_texts(found, row) for row in found.rows])


def _texts(found: Contributions, row: Mapping[str, Any]) -> dict[str, str]:
    cells = {"timestep": str(row["timestep"]), "step": str(row["step"])}
    for key, (name, _) in CHANGES.items():
        change = found.change(row, key)
        cells[f"{name}: {found.metric}"] = (
            f"{change['value']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]" if change else "–"
        )
    return cells
