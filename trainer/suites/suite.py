"""`python -m trainer.run suite:NAME`: measures the rows of a table, and writes a results file.

Started again, a suite skips finished work and resumes the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deediff.analysis.trends import mean_exit_layer, threshold_table, timestep_share
from deediff.checkpoints import find_checkpoint
from deediff.cost.components import model_cost
from deediff.errors import UserError
from deediff.json_files import FORMAT_VERSION, read_json, write_json
from deediff.models import PRESETS as MODELS
from deediff.models import EarlyExitModel, make_backbone
from deediff.traces.reader import Trace
from trainer.config import Precision
from trainer.suites.baselines import Baselines
from trainer.suites.experiments import Experiments
from trainer.suites.results import read_results
from trainer.suites.scales import SCALES
from trainer.suites.tables import BASELINE_KINDS, SUITES, Row

THRESHOLDS = [i / 200 for i in range(2, 41)]  # for the what-if of a full record: 0.01, 0.015, … 0.2
KEPT = ("value", "low", "high", "floor", "floor_spread", "images", "reference", "device")  # fields of a quality


class Suite:
    """One suite. `run()` measures its rows and returns the results file."""

    def __init__(
        self,
        name: str,
        scale: str,
        out: Path,
        data_root: Path | None = None,
        device: str = "auto",
        precision: Precision = "auto",  # of new trainings
    ):
        if name not in SUITES:
            raise UserError(f"unknown suite {name!r}, expected one of: {', '.join(SUITES)}")
        if scale not in SCALES:
            raise UserError(f"unknown scale {scale!r}, expected one of: {', '.join(SCALES)}")
        self.name, self.experiments = name, Experiments(scale, out, data_root, device, precision)
        self.baselines: Baselines | None = None  # of the last row with a threshold

    def run(self, only: Sequence[str] = ()) -> Path:
        """Measure the rows that are not measured yet.

        only: rows with these names, or with names that contain one of these texts. The results file keeps its other
        rows of the same scale. Raises UserError when there is no such row.
        """
        scale, path = self.experiments.scale, self.experiments.out / f"suite-{self.name}.json"
        if self.name == "table2":
            if only:
                raise UserError("table2 always counts all of its rows: leave --rows out")
            rows = self._components()
        else:
            measured: dict[str, dict[str, Any]] = {}
            if path.exists():
                stored, stored_rows = read_results(path)
                if stored.get("scale") == self.experiments.scale_name:
                    measured |= stored_rows
            measured |= {row.name: self._measure(row) for row in rows_named(SUITES[self.name], only)}
            rows = [measured[row.name] for row in SUITES[self.name] if row.name in measured]
        thresholds = [{"published": published, "here": here} for published, here in scale.thresholds.items()]
        protocol = {"solver": scale.solver, "steps": scale.steps, "images": scale.num_samples, "thresholds": thresholds}
        content = {"format_version": FORMAT_VERSION, "suite": self.name, "scale": self.experiments.scale_name}
        write_json(path, {**content, **protocol, "problems": self.experiments.problems, "rows": rows})
        return path

    def _components(self) -> list[dict[str, Any]]:
        """Table 2: GFLOPs of one UEM and one head of U-ViT-S/2."""
        published = {"mlp": 0.0002, "attention": 0.26}
        rows = []
        for name, value in published.items():
            cost = model_cost(EarlyExitModel(make_backbone(MODELS["uvit_small"])).add_exits({"name": name}))
            rows.append({"name": f"{name} probe", "published": {"gflops": value}, "measured": {"gflops": cost.uems[0]}})
        head = {"name": "output head", "published": {"gflops": 0.0035}, "measured": {"gflops": cost.heads[0]}}
        return [*rows, head]

    def _measure(self, row: Row) -> dict[str, Any]:
        """A row of the results file."""
        run, policy, steps = self._run(row), *self._policy(row)
        fitted = row.policy in BASELINE_KINDS and policy != "never"  # its policy text has fitted numbers and paths
        label = f"{self.experiments.scale.solver}{steps}-{row.policy if fitted else policy}"
        label += "-full" if row.record == "full" else ""  # without the suite's name: suites share traces
        trace = self.experiments.sample(run, label, policy, steps, record=row.record)
        if row.threshold is not None:
            self.baselines = Baselines(self.experiments, run, trace)
        meta, exits, cost = trace.meta, trace.summary.exits, trace.cost
        with_uem, plain = meta.policy_needs_uncertainty, cost.without_attention
        gflops = cost.mean_gflops(exits, with_uem)
        checkpoint = find_checkpoint(run)
        return {
            "name": row.name,
            "published": row.published,
            "measured": {
                "policy": meta.title,
                "steps": len(trace.timesteps),
                "images": int(trace.summary.samples),
                "num_blocks": trace.num_blocks,
                "layer_reduction_pct": 100 * (1 - cost.layer_ratio(exits)),
                "mean_exit_layer": mean_by_third(mean_exit_layer(exits)),
                "timestep_share": None if math.isnan(share := timestep_share(exits)) else share,
                "layer_0_pct": 100 * float(exits[:, 0].sum() / exits.sum()),
                "gflops": gflops,
                "gflops_without_attention": plain and plain.mean_gflops(exits, with_uem=with_uem),
                "gflops_per_image": gflops * len(trace.timesteps),
                "seconds_per_image": meta.seconds_per_image,
                "device": meta.device,
                "images_seen": read_json(checkpoint.with_suffix(".json"))["images_seen"],
                **self._quality(trace),
                **(_trends(trace) if row.record == "full" else {}),
            },
            "trace": str(Path(str(trace.path)).relative_to(self.experiments.out)),
        }

    def _quality(self, trace: Trace) -> dict[str, dict[str, Any]]:
        return {
            name: {key: value for key, value in asdict(quality).items() if key in KEPT}
            for name, quality in self.experiments.quality(trace).items()
        }

    def _policy(self, row: Row) -> tuple[str, int]:
        """The text of the policy, and the number of denoising steps."""
        scale = self.experiments.scale
        if row.policy in BASELINE_KINDS:
            assert self.baselines is not None, "a baseline follows a row with a threshold"
            return self.baselines.policy(row.policy)
        if row.policy is not None:
            return row.policy, scale.steps
        return ("never" if row.threshold is None else f"threshold:{scale.thresholds[row.threshold]}"), scale.steps

    def _run(self, row: Row) -> Path:
        """The trained run that a row samples from."""
        if row.policy == "smaller":
            assert self.baselines is not None
            return self.baselines.smaller()
        if row.method is None:
            return self.experiments.backbone()
        method = row.method
        if row.uems is not None:
            method = replace(method, layers=spread(row.uems, self.experiments.scale.config.model.num_blocks))
        return self.experiments.with_exits(method, row.strategy)


def rows_named(rows: Sequence[Row], texts: Sequence[str]) -> list[Row]:
    """The rows with these names, or with names that contain one of the texts; no texts: all.

    Baselines come with the row that is their budget. Raises UserError when there is no such row.
    """
    names = {row.name for row in rows}
    parts = [text for text in texts if text not in names]
    chosen = [row for row in rows if not texts or row.name in texts or any(part in row.name for part in parts)]
    if not chosen:
        known = "; ".join(row.name for row in rows)
        raise UserError(f"no row of this suite has the name {' or '.join(map(repr, texts))}, only: {known}")
    has_baselines = any(row.policy in BASELINE_KINDS for row in chosen)
    return [row for row in rows if row in chosen or (has_baselines and row.threshold is not None)]


def overview(results: Path) -> list[dict[str, Any]]:
    """A results file as a readable table: measured values, with published ones in brackets."""
    rows = []
    for row in read_results(results)[1].values():
        measured, published = row["measured"], row["published"]
        cells = {"row": row["name"]}
        for key in ("layer_reduction_pct", "gflops", "gflops_without_attention", "seconds_per_image"):
            if measured.get(key) is not None:
                cells[key] = f"{measured[key]:.4g}" + (f" ({published[key]:.4g})" if key in published else "")
        cells |= {key: f"{value['value']:.4g}" for key, value in measured.items() if isinstance(value, dict)}
        if "fid" in published:
            cells["published_fid"] = f"{published['fid']:.4g}"
        rows.append(cells)
    columns = list(dict.fromkeys(key for cells in rows for key in cells))
    return [{key: cells.get(key) for key in columns} for cells in rows]


def spread(count: int, num_blocks: int) -> tuple[int, ...]:
    """`count` layers out of 0 … N−1, at the middles of equal parts: 2 of 13 are (3, 9)."""
    count = min(count, num_blocks)
    return tuple(round((k + 0.5) * num_blocks / count - 0.5) for k in range(count))


def mean_by_third(values: NDArray[np.float64]) -> list[Any]:
    """Means over the first, second and last third of the denoising steps, of values (S, …)."""
    return [third.mean(axis=0).tolist() for third in np.array_split(values, min(3, len(values)))]


def _trends(trace: Trace) -> dict[str, Any]:
    """Mean u by layer, and the what-if of each threshold."""
    return {
        "mean_uncertainty": mean_by_third(trace.summary.mean_uncertainty()),
        "what_if": threshold_table(trace, THRESHOLDS).to_dict("records"),
    }
