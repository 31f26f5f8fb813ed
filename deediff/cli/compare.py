"""`deediff compare`: a table of traces, as text, CSV, Parquet or LaTeX."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd

from deediff.analysis import published
from deediff.analysis.compare import PARTS, TEXT, comparison_table
from deediff.cli.command import Command, Result, Traces, defaults_to, one_of
from deediff.cli.show import as_text, format_cell
from deediff.cli.traces import trace_argument
from deediff.errors import UserError
from deediff.storage import write_atomically

ALWAYS = ("seconds_per_image", "efficiency")  # columns that are shown even where nothing was measured
FORMATS = {".txt": "text", ".csv": "csv", ".parquet": "parquet", ".tex": "latex"}
Format = Annotated[str | None, one_of(tuple(FORMATS.values())), defaults_to("by the ending of --out, else text")]


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """A table of traces: GFLOPs, seconds, quality with intervals and floors, and published values."""

    traces: Traces
    """Trace folders or URLs. The others are compared with the trace of policy never among them."""
    format: Format = None
    """csv and parquet hold all columns, text and latex (booktabs) a selection. Endings: .txt, .csv, .parquet, .tex."""
    out: Annotated[Path | None, defaults_to("standard output")] = None
    """Write the table into this file."""

    def run(self) -> Result | str:
        """Cost, promised and measured, quality, and distance from the full network's images."""
        ending = self.out.suffix if self.out is not None else ""
        if self.format is None and ending and ending not in FORMATS:
            raise UserError(f"no format belongs to {self.out}, expected one of {', '.join(FORMATS)}: or give --format")
        form = self.format or FORMATS.get(ending, "text")
        if form == "parquet" and self.out is None and not self.json:
            raise UserError("Parquet is a binary format: give a file with --out, e.g. --out table.parquet")
        traces = [trace_argument(path) for path in self.traces]
        table = comparison_table(traces)
        runs = [trace.path.parent.parent.name if trace.path.parent.name == "traces" else None for trace in traces]
        table.insert(0, "run", runs)
        if self.out is not None:
            content = render(table, form)
            try:
                write_atomically(self.out, content.encode() if isinstance(content, str) else content)
            except OSError as error:
                raise UserError(f"{self.out} cannot be written ({error.strerror}): choose another --out") from None
        if self.json:
            rows = table.astype(object).where(table.notna(), None).to_dict("records")
            return {"device": _devices(table), "traces": rows, "out": None if self.out is None else str(self.out)}
        return {"out": str(self.out), "format": form} if self.out is not None else str(render(table, form)).rstrip("\n")


def render(table: pd.DataFrame, form: str) -> str | bytes:
    """A comparison table in one of the formats."""
    if form == "csv":
        return table.to_csv(index=False)
    if form == "parquet":
        file = io.BytesIO()
        table.to_parquet(file, index=False)
        return file.getvalue()
    if form == "latex":
        return _latex(table)
    return as_text({"device": _devices(table), "traces": _rows(table)} | _notes(table))


def _devices(table: pd.DataFrame) -> str:
    return "; ".join(sorted({str(device) for device in table["device"].fillna("unknown")}))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Without empty columns; a value and its interval in one cell, a floor and its spread in another."""
    empty = [name for name in table if table[name].isna().all() and name not in ALWAYS]
    table = table.drop(columns=[*empty, "quality_protocol", "device"], errors="ignore")
    metrics = [name for name in table if f"{name}_low" in table or f"{name}_floor" in table]
    parts = {f"{metric}_{part}" for metric in metrics for part in PARTS}
    rows = []
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        cells: dict[str, Any] = {}
        for name, value in row.items():
            if name in metrics:
                cells[name] = {"value": value, "low": row.get(f"{name}_low"), "high": row.get(f"{name}_high")}
                if f"{name}_floor" in row:
                    cells[f"{name}_floor"] = _floor(row[f"{name}_floor"], row.get(f"{name}_floor_spread"))
            elif name not in parts:
                cells[str(name)] = value
        rows.append(cells)
    return rows


def _floor(value: float | None, spread: float | None) -> Any:
    return value if value is None or spread is None else f"{value:.4g} ± {spread:.2g}"


def _notes(table: pd.DataFrame) -> dict[str, str]:
    """How the columns were measured."""
    rows = table.get("quality_protocol", pd.Series(dtype=object)).dropna()
    protocols = dict.fromkeys(line for row in rows for line in row.split("\n"))
    notes = {"quality": "\n  ".join(["", *protocols])} if protocols else {}
    return notes | ({"note": published.NOTE} if "published_source" in table else {})


def _latex(table: pd.DataFrame) -> str:
    """A booktabs table, with its notes as comments."""
    rows = _rows(table)
    columns = list(rows[0])
    align = "".join("l" if name in (*TEXT, "run") else "r" for name in columns)
    lines = [" & ".join(_escape(name.replace("_", " ")) for name in columns) + r" \\"]
    lines += [" & ".join(_escape(format_cell(cell)) for cell in row.values()) + r" \\" for row in rows]
    notes = [f"% {line.strip()}" for note in _notes(table).values() for line in note.split("\n") if line.strip()]
    body = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([r"% needs \usepackage{booktabs}", *body, r"\end{tabular}", *notes])


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in text)
