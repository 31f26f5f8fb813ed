"""Runs and traces as tables, the settings in which they differ, and training curves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from app.state.traces import key_of
from deediff.analysis.compare import column_names, comparison_table
from deediff.errors import UserError
from deediff.quality.results import Quality
from deediff.runs import Run, folder_size, written
from deediff.traces.reader import Trace

OLD_NAMES = {name: f"method.{name}" for name in ("uem", "lambda_u", "beta_ual", "layer_weight")}  # in older runs
LOSSES = {
    "loss_total": "Eq. 9",
    "loss_simple": "Eq. 4",
    "loss_uncertainty": "Eq. 7",
    "loss_ual": "Eq. 8",
    "loss_layer": "Eq. 10",
}
TRACE_COLUMNS = (
    "trace",
    "policy",
    "solver",
    "steps",
    "images",
    "layer_ratio",
    "gflops_per_image",
    "seconds_per_image",
    "speed_up",
)
POINTS = 1500  # of a curve on screen
NOT_SETTINGS = (
    "cost",
    "timesteps",
    "format_version",
    "complete",
    "wall_seconds",
    "layer_ratio",
    "mean_gflops",
    "full_gflops",
    "num_blocks",
    "has_uncertainty",
    "policy_needs_uncertainty",
)


def run_table(runs: Sequence[Run], curves: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per run: identity, progress, size."""
    rows = []
    for run in runs:
        info, curve = run.info, curves.get(run.name)
        parameters = info.get("parameters")
        trained = curve is not None and len(curve) > 0
        rows.append(
            {
                "run": run.name,
                "written": _written(run.path),
                "status": run.status,
                "dataset": info.get("dataset"),
                "preset": info.get("preset"),
                "parameters": sum(parameters.values()) if isinstance(parameters, dict) else None,
                "images_seen": info.get("images_seen"),
                "last_loss": float(curve["loss_total"].iloc[-1]) if curve is not None and trained else None,
                "checkpoints": len(run.checkpoints),
                "traces": len(run.traces),
                "megabytes": folder_size(run.path) / 1e6,
            }
        )
    return pd.DataFrame(rows)


def _written(folder: Path) -> str:
    """Date and time of day, in the time zone of the server."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(written(folder)))


def trace_table(traces: Sequence[Trace], quality: Mapping[str, Sequence[Quality]]) -> pd.DataFrame:
    """One row per trace: cost, a column per evaluated metric, and size."""
    table = comparison_table(traces, lambda trace, full: None, lambda trace: quality.get(key_of(trace), []))
    metrics = list(column_names([result for found in quality.values() for result in found]).values())
    table = table[[*TRACE_COLUMNS, *(name for name in metrics if name in table)]]
    table.insert(0, "run", [trace.path.parents[1].name for trace in traces])
    table.insert(2, "written", [_written(Path(str(trace.path))) for trace in traces])
    table["complete"] = [trace.meta.complete for trace in traces]
    table["megabytes"] = [folder_size(Path(str(trace.path))) / 1e6 for trace in traces]
    return table


def run_settings(run: Run) -> dict[str, Any]:
    """Every setting of a training, by its name on the command line."""
    kept = {key: run.info.get(key) for key in ("preset", "dataset", "device")}
    settings = {OLD_NAMES.get(name, name): value for name, value in flat(run.info.get("config") or {}).items()}
    return kept | settings | {f"version of {k}": v for k, v in version_settings(run.info).items()}


def trace_settings(trace: Trace) -> dict[str, Any]:
    """Every setting of a sampling job."""
    meta = {key: value for key, value in trace.meta.raw.items() if key not in (*NOT_SETTINGS, "versions")}
    return flat(meta) | {f"version of {k}": v for k, v in version_settings(trace.meta.raw).items()}


def version_settings(info: Mapping[str, Any]) -> dict[str, Any]:
    """Of the software."""
    found = info.get("versions")
    return dict(found) if isinstance(found, dict) else {}


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"model": {"depth": 12}} → {"model.depth": 12}."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def settings_table(settings: Mapping[str, Mapping[str, Any]], all_of_them: bool = False) -> pd.DataFrame:
    """One row per setting in which the named ones differ (or every one), one column per name.

    A setting that one of them lacks, as runs of older versions do, is not a difference.
    """
    keys = list(dict.fromkeys(key for each in settings.values() for key in each))
    rows = {key: {name: setting_text(each[key]) for name, each in settings.items() if key in each} for key in keys}
    kept = {key: row for key, row in rows.items() if all_of_them or len(set(row.values())) > 1}
    table = pd.DataFrame.from_dict(kept, orient="index", columns=list(settings)).fillna("–")
    return table.rename_axis("setting").reset_index()


def setting_text(value: Any) -> str:
    """A setting in a cell."""
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def read_curves(runs: Iterable[Run], problems: list[str]) -> dict[str, pd.DataFrame]:
    """metrics.parquet of the runs that have one; adds a sentence for each that cannot be read."""
    found = {}
    for run in runs:
        file = run.path / "metrics.parquet"
        if not file.exists():
            continue
        try:
            table = pq.read_table(file).to_pandas()
            if missing := [key for key in ("step", "stage", "loss_total") if key not in table]:
                raise UserError(f"{file} lacks {', '.join(missing)}: it was not written by the trainer")
        except (OSError, pa.ArrowException, UserError) as error:
            reason = str(error).splitlines()[0]
            problems.append(reason if isinstance(error, UserError) else f"{file} cannot be read ({reason})")
            continue
        found[run.name] = table
    return found


def thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """At most `POINTS` rows, evenly spread, the last one included."""
    step = max(1, -(-len(curve) // POINTS))
    return curve.iloc[::-1].iloc[::step].iloc[::-1]


def steps_planned(run: Run) -> int | None:
    """Of all stages together, where the run records it."""
    config = run.info.get("config")
    stages = [config.get(name) for name in ("backbone", "exits")] if isinstance(config, dict) else []
    counts = [count for stage in stages if isinstance(stage, dict) and isinstance(count := stage.get("steps"), int)]
    return sum(counts) or None
