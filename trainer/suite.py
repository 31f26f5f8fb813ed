"""`python -m trainer.run suite:NAME`: what a published table needs, the published value beside each measured one.

A suite is a list of rows: what is trained, how it is sampled, and what others printed for it. Running it
again skips what is done and resumes what is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from deediff.analysis.cost import model_cost
from deediff.analysis.static import fit_static, save_schedule
from deediff.checkpoints import find_checkpoint, load_checkpoint, read_json, write_json
from deediff.errors import UserError
from deediff.models import PRESETS as MODELS
from deediff.models import EarlyExitModel, UViT
from deediff.sampling.sampler import Step
from deediff.storage import write_atomically
from deediff.traces.reader import Trace, read_trace
from deediff.traces.writer import sample_to_trace
from trainer.loop import Training
from trainer.presets import PRESETS, Method, Stage, TrainConfig

Strategy = Literal["frozen", "finetuned", "scratch"]


@dataclass(frozen=True)
class Scale:
    """How large everything is. Thresholds are those of the tables, given in units of this scale."""

    config: TrainConfig  # backbone and exits
    solver: str
    steps: int
    num_samples: int
    batch_size: int
    thresholds: dict[float, float]  # published τ → the τ that is sampled here
    init: Path | None = None  # a backbone to start from, instead of training one


_TINY = PRESETS["mnist_tiny"][1]
_TOY = replace(
    _TINY,
    model=replace(_TINY.model, img_size=32, patch_size=8, embed_dim=32, num_heads=2, depth=4, in_chans=1),
    backbone=Stage(steps=4, batch_size=4), exits=Stage(steps=4, batch_size=4), start="official",
    sample_every=0, log_every=1,
)  # fmt: skip

SCALES: dict[str, Scale] = {
    "cpu": Scale(  # the shipped backbone, 1 024 digits
        replace(_TINY, sample_every=0), "ddim", 50, 1024, 128, {0.05: 0.08, 0.075: 0.1}, init=Path("runs/mnist_tiny")
    ),
    "paper": Scale(PRESETS["uvit_small"][1], "ddpm", 1000, 1024, 128, {0.05: 0.05, 0.075: 0.075}),
    "toy": Scale(_TOY, "ddim", 6, 4, 4, {0.05: 0.3, 0.075: 0.5}),
}


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    name: str
    method: Method | None = None  # None: the plain backbone
    strategy: Strategy = "frozen"
    threshold: float | None = None  # published; None: no early exit, unless there is a policy
    published: dict[str, float] = field(default_factory=dict)
    policy: str | None = None  # as on the command line, or one of EQUAL_COST
    record: Literal["exit", "full"] = "exit"


# Ways to spend no more than the row before them did with early exit.
EQUAL_COST = ("fewer steps", "fixed", "static", "dual", "smaller")


def _published(fid: float, reduction: float, gflops: float) -> dict[str, float]:
    return {"fid": fid, "layer_reduction_pct": reduction, "gflops": gflops}


MLP, ATTENTION, FOUR = Method(), Method(uem="attention"), {"layer_weight": 1.0}
TIMESTEP, BOTH = Method(scope="timestep"), Method(scope="layer_timestep")
BASELINE = Row("U-ViT", published=_published(79.34, 0, 22.75))
TABLE1 = [
    BASELINE,
    Row("MLP per layer, frozen", MLP, "frozen", 0.075, _published(86.57, 31.1, 15.58)),
    Row("MLP per layer, fine-tuned", MLP, "finetuned", 0.075, _published(116.49, 42.3, 13.05)),
    Row("MLP per layer, scratch", MLP, "scratch", 0.075, _published(125.15, 39.32, 13.74)),
    Row("MLP per timestep, frozen", TIMESTEP, "frozen", 0.075, _published(79.13, 0.1, 22.74)),
    Row("MLP per timestep, fine-tuned", TIMESTEP, "finetuned", 0.075, _published(173.05, 35.0, 14.67)),
    Row("MLP per layer and timestep, frozen", BOTH, "frozen", 0.075, _published(79.13, 0.0, 22.75)),
    Row("MLP per layer and timestep, fine-tuned", BOTH, "finetuned", 0.075, _published(133.35, 35.3, 14.68)),
    Row("attention per layer, frozen", ATTENTION, "frozen", 0.075, _published(85.48, 32.0, 17.84)),
    Row("attention per layer, fine-tuned", ATTENTION, "finetuned", 0.075, _published(109.83, 40.0, 15.77)),
    Row("attention per layer, scratch", ATTENTION, "scratch", 0.075, _published(114.62, 40.0, 15.80)),
]
MLP4, ATTENTION4 = replace(MLP, layer_weight=1.0), replace(ATTENTION, layer_weight=1.0)
TABLE3 = [
    BASELINE,
    TABLE1[2],
    Row("MLP, 4 losses, fine-tuned", MLP4, "finetuned", 0.075, _published(107.34, 42.3, 13.07)),
    TABLE1[9],
    Row("attention, 4 losses, fine-tuned", ATTENTION4, "finetuned", 0.075, _published(108.30, 42.5, 15.13)),
]
TABLE4 = [
    BASELINE,
    Row("MLP per layer, frozen, τ = 0.05", MLP, "frozen", 0.05, _published(79.71, 16.54, 18.90)),
    TABLE1[1],
    Row("attention per layer, frozen, τ = 0.05", ATTENTION, "frozen", 0.05, _published(80.08, 16.29, 21.91)),
    TABLE1[8],
]
TRENDS = [  # full records: Figure 9, and any threshold by what-if
    replace(row, threshold=None, policy="never", record="full", published={})
    for row in (TABLE1[1], TABLE1[2], TABLE3[2], TABLE1[8], TABLE1[9], TABLE3[4])
]
BASELINES = [
    BASELINE,
    TABLE1[1],
    Row("fewer steps", policy="fewer steps"),
    Row("one exit for all", MLP, policy="fixed"),
    Row("best static schedule", MLP, policy="static"),
    Row("dual backbone", policy="dual"),
    Row("a smaller network", policy="smaller"),
    Row("ASE's schedule", MLP, policy="schedule:ase"),  # at a cost of its own
]
SUITES: dict[str, list[Row]] = {
    "table1": TABLE1, "table2": [], "table3": TABLE3, "table4": TABLE4, "trends": TRENDS, "baselines": BASELINES,
}  # fmt: skip


class Suite:
    """Runs the rows of one suite. `run()` returns the results file."""

    def __init__(self, name: str, scale: str, out: Path, data_root: Path | None = None, device: str = "auto"):
        if name not in SUITES:
            raise UserError(f"unknown suite {name!r}, expected one of: {', '.join(SUITES)}")
        if scale not in SCALES:
            raise UserError(f"unknown scale {scale!r}, expected one of: {', '.join(SCALES)}")
        self.name, self.scale_name, self.scale, self.out = name, scale, SCALES[scale], out
        self.machine: dict[str, Any] = {"data_root": data_root, "device": device}
        self.early: Trace | None = None  # the early exit whose cost the baselines may spend

    def run(self) -> Path:
        """Train, sample and write what is not there yet."""
        rows = self._components() if self.name == "table2" else [self._measure(row) for row in SUITES[self.name]]
        path = self.out / f"suite-{self.name}.json"
        scale = {"solver": self.scale.solver, "steps": self.scale.steps, "images": self.scale.num_samples}
        write_json(path, {"format_version": 1, "suite": self.name, "scale": self.scale_name, **scale, "rows": rows})
        return path

    def _components(self) -> list[dict[str, Any]]:
        """Table 2: GFLOPs of one probe and one head of U-ViT-S/2."""
        published = {"mlp": 0.0002, "attention": 0.26}
        rows = []
        for name, value in published.items():
            cost = model_cost(EarlyExitModel(UViT(MODELS["uvit_small"])).add_exits({"name": name}))
            rows.append({"name": f"{name} probe", "published": {"gflops": value}, "measured": {"gflops": cost.uems[0]}})
        head = {"name": "output head", "published": {"gflops": 0.0035}, "measured": {"gflops": cost.heads[0]}}
        return [*rows, head]

    def _measure(self, row: Row) -> dict[str, Any]:
        """One row of the results."""
        trace = self._trace(row)
        if row.threshold is not None and row.policy is None:
            self.early = trace
        meta = trace.meta
        quality = trace.path / "quality.json"
        return {
            "name": row.name,
            "published": row.published,
            "measured": {
                "policy": meta["policy"],
                "steps": meta["steps"],
                "images": int(trace.summary.samples),
                "layer_reduction_pct": 100 * (1 - trace.cost.layer_ratio(trace.summary.exits)),
                "gflops": meta["mean_gflops"],
                "gflops_per_image": meta["mean_gflops"] * meta["steps"],
                "seconds_per_image": meta["wall_seconds"] / meta["num_samples"] if "wall_seconds" in meta else None,
                "device": meta["device"],
                "quality": read_json(quality) if quality.exists() else None,
            },
            "trace": str(Path(str(trace.path)).relative_to(self.out)),
        }

    def _trace(self, row: Row) -> Trace:
        run, policy, steps = self._run(row), *self._policy(row)
        folder = run / "traces" / _slug(f"{self.name} {row.name}")
        with tqdm(unit="step", desc=row.name, disable=None, mininterval=0.5) as bar:

            def on_step(step: Step) -> None:
                bar.total = step.total
                bar.update()

            s = self.scale
            sample_to_trace(
                run, folder, s.num_samples, policy, s.solver, steps, 0, s.batch_size, record=row.record,
                device=self.machine["device"], on_step=on_step,
            )  # fmt: skip
        return read_trace(folder)

    def _policy(self, row: Row) -> tuple[str, int]:
        """The policy as on the command line, and the number of denoising steps."""
        steps = self.scale.steps
        if row.policy is None:
            return ("never" if row.threshold is None else f"threshold:{self.scale.thresholds[row.threshold]}"), steps
        if row.policy not in EQUAL_COST:
            return row.policy, steps
        assert self.early is not None
        cost, budget = self.early.cost, float(self.early.meta["mean_gflops"])
        if row.policy == "fixed":
            affordable = [i for i, price in enumerate(cost.at_exit(with_uem=False)) if price <= budget]
            return f"fixed:{max(affordable, default=0)}", steps
        if row.policy == "static":
            schedule = self.out / "static-schedule.json"
            save_schedule(schedule, self.early, fit_static(self.early, budget).layers)
            return f"schedule:{schedule}", steps
        if row.policy == "dual":
            shallow = self._train("shallow", self._plain(depth=2))
            cheap = model_cost(_model(shallow)).full
            switch = 1000 * (budget - cheap) / (cost.full - cheap)  # the full network takes the timesteps below
            return f"dual:{max(0, round(switch))}:{shallow}", steps
        return "never", max(1, int(steps * budget / cost.full)) if row.policy == "fewer steps" else steps

    def _run(self, row: Row) -> Path:
        """The trained run that a row samples from."""
        if row.policy == "smaller":
            assert self.early is not None
            depths = range(2, self.scale.config.model.depth + 1, 2)
            costs = {d: model_cost(EarlyExitModel(UViT(self._plain(d).model))).full for d in depths}
            budget = self.early.meta["mean_gflops"]
            return self._train("smaller", self._plain(max((d for d in depths if costs[d] <= budget), default=2)))
        if row.method is None:
            return self._backbone()
        config = replace(self.scale.config, method=row.method, strategy=row.strategy)
        if row.strategy == "scratch":
            stage = replace(config.backbone, steps=config.backbone.steps + config.exits.steps)
            config = replace(config, exits=stage)
        else:
            config = replace(config, init=self._backbone(), backbone=replace(config.backbone, steps=0))
        label = next(name for name, method in _METHODS.items() if method == row.method)
        return self._train(f"{label}-{row.strategy}", config)

    def _plain(self, depth: int | None = None) -> TrainConfig:
        config = self.scale.config
        model = config.model if depth is None else replace(config.model, depth=depth)
        return replace(config, model=model, exits=replace(config.exits, steps=0))

    def _backbone(self) -> Path:
        """The backbone that all others start from."""
        if self.scale.init is None:
            return self._train("backbone", self._plain())
        folder, source = self.out / f"{self.scale_name}-backbone", find_checkpoint(self.scale.init)
        for file in (source, source.with_suffix(".json")):
            write_atomically(folder / "checkpoints" / file.name, file.read_bytes())
        write_json(folder / "run.json", {**read_json(self.scale.init / "run.json"), "source": self.scale.init.name})
        return folder

    def _train(self, label: str, config: TrainConfig) -> Path:
        folder = self.out / f"{self.scale_name}-{label}"
        return Training(f"suite:{self.name}", replace(config, out=folder, **self.machine)).run()


_METHODS = {
    "mlp": MLP, "mlp4": MLP4, "attention": ATTENTION, "attention4": ATTENTION4, "timestep": TIMESTEP,
    "layer-timestep": BOTH,
}  # fmt: skip


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("τ", "tau")).strip("-")


def _model(run: Path) -> EarlyExitModel:
    return load_checkpoint(run)[0]
