"""The settings: policy, solver, steps, images, seed; and which of them are quick enough for live mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st
import torch

from app.state import cache
from app.state.choice import resolve
from app.state.selection import HIGHEST, STEP, Selection
from app.widgets import inputs
from app.widgets.empty import offer_calibration, offer_sampling
from deediff.calibration.drift import drift_file
from deediff.calibration.file import calibration_file
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import SOLVERS
from deediff.models import EarlyExitModel
from deediff.plans.file import find_plan, plan_names
from deediff.policies.registry import POLICIES
from deediff.policies.schedule_file import ready_made
from deediff.readouts import READOUTS, exit_readouts
from deediff.runs import list_runs
from deediff.settings import SamplingSettings

PLAN = "plan"
PLAN_HELP = "timesteps and exits chosen together, from the run's folder `plans`; left the full network at its timesteps"
DEFAULTS = {"steps": 20, "seed": 0, "images": 4}
WITHOUT_EXITS = ("never", "dual")  # policies
DELTAS = {"drift": (0.2, 0.005, 0.02), "first-block": (0.5, 0.005, 0.1), "teacache": (0.5, 0.005, 0.1)}
FROM_MEMORY = ("every", *DELTAS)  # policies whose exits are best read out from memory
SMALL = 106  # pixels of a narrow control
MOST_STEPS, MOST_IMAGES = 50, 16  # that live mode follows …
MOST_GFLOPS = {"cpu": 200.0, "cuda": 20_000.0}  # … and in all, for the full network: a second or two


def live_settings(selection: Selection, model: EarlyExitModel, schedule: Schedule) -> SamplingSettings:
    """The widgets: when to exit, how to sample, how many."""
    assert selection.checkpoint is not None
    best = "excess" if calibration_file(selection.checkpoint).exists() else "threshold"  # the best of the findings
    best = "never" if model.uem is None else best
    with st.container(horizontal=True, gap="xsmall"):  # beside each other where the window is narrow
        plans = plan_names(selection.run.path)
        kind = inputs.selectbox(
            "Policy",
            [*POLICIES, *[PLAN] * bool(plans)],
            "live policy",
            best,
            help="\n".join(f"- `{entry.usage}`: {entry.help}" for entry in POLICIES.values())
            + f"\n- `{PLAN}`: {PLAN_HELP}",
        )
        if kind == PLAN:
            return _plan_settings(selection, plans)
        policy = ARGUMENTS.get(kind, _other)(kind, selection, model, schedule) + _bounds(kind, model.num_blocks)
        solver = inputs.selectbox("Solver", list(SOLVERS), "live solver", format_func=str.upper, width=SMALL)
        steps = inputs.number_input("Steps", 1, schedule.num_timesteps, "live steps", DEFAULTS["steps"], width=SMALL)
        count = inputs.number_input("Images", 1, 64, "live images", DEFAULTS["images"], width=SMALL)
        seed = inputs.number_input("Seed", 0, 2**31 - 1, "live seed", DEFAULTS["seed"], width=SMALL)
    readout = "head" if kind in WITHOUT_EXITS else _readout(model, "memory:0" if kind in FROM_MEMORY else "head")
    st.caption(f"{selected_weights(selection)} (chosen in the sidebar)")
    return SamplingSettings(policy, solver, steps, readout=readout, num_samples=count, batch_size=count, seed=seed)


def _readout(model: EarlyExitModel, usual: str) -> str:
    """How samples that exit get their prediction."""
    return inputs.selectbox(
        "Readout of exits",
        exit_readouts(model),
        "live readout",
        usual,
        help="\n".join(f"- `{entry.usage}`: {entry.help}" for entry in READOUTS.values()),
    )


def _plan_settings(selection: Selection, plans: Sequence[str]) -> SamplingSettings:
    """The widgets of a plan of the run, which decides solver, timesteps and exits."""
    name = inputs.selectbox("Plan", plans, "live plan", help=PLAN_HELP)
    count = inputs.number_input("Images", 1, 64, "live images", DEFAULTS["images"], width=SMALL)
    seed = inputs.number_input("Seed", 0, 2**31 - 1, "live seed", DEFAULTS["seed"], width=SMALL)
    plan = find_plan(name, selection.run.path)
    policy = f"threshold:{selection.threshold or 0.1:g}" if plan.uses_policy else "never"
    st.caption(f"{plan.solver.upper()}, {len(plan.steps)} steps: {plan}")
    return SamplingSettings(policy, plan=plan, num_samples=count, batch_size=count, seed=seed)


def selected_weights(selection: Selection) -> str:
    """Run and checkpoint in words."""
    assert selection.checkpoint is not None
    return f"{selection.run.name}, checkpoint {selection.checkpoint.stem}"


def is_quick(settings: SamplingSettings, model: EarlyExitModel) -> bool:
    """Whether live mode may sample these settings whenever one of them changes."""
    few = settings.steps <= MOST_STEPS and settings.num_samples <= MOST_IMAGES
    limit = MOST_GFLOPS["cuda" if torch.cuda.is_available() else "cpu"]
    return few and model_cost(model).full * settings.steps * settings.num_samples <= limit


def _threshold(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    shared = 0.1 if selection.threshold is None else selection.threshold
    before = st.session_state.setdefault("live tau followed", shared)
    st.session_state["live tau followed"] = shared
    tau = inputs.slider(
        "Threshold τ",
        (0.0, HIGHEST, STEP),
        "live tau",
        shared,
        led=None if before == shared else shared,
        format="%.3f",
        help="A sample exits at the first layer whose u is ≤ τ. Follows the what-if slider when that is moved.",
    )
    return f"{kind}:{round(tau, 3):g}"


def _never(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    return kind


def _fixed(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    last = model.num_blocks
    layer = inputs.slider("Exit layer", (0, last, 1), "live layer", last // 2)
    return f"{kind}:{layer}"


def _schedule(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    file = inputs.text_input(
        "Schedule",
        "live schedule",
        ready_made()[0],
        linked=ready_made(),
        help="`ase`, or the path of a JSON file on the server that holds `exit_layer` or `threshold` over time, "
        "or `layer_threshold`. `deediff static TRACE --budget GFLOPs --out FILE` writes one.",
    )
    return f"{kind}:{file.strip()}"


def _gflops(label: str, key: str, model: EarlyExitModel) -> float:
    """A budget per step, as policies take it and links carry it; on screen it is per image."""
    full, steps = model_cost(model).full, _shown("steps")
    unit = float(f"{full / 200:.1g}")
    stops = [float(f"{k * unit:.4g}") for k in range(1, int(full / unit) + 1)]
    return inputs.select_slider(
        label,
        stops,
        key,
        min(stops, key=lambda stop: abs(stop - 0.8 * full)),
        format_func=lambda per_step: f"{per_step * steps:.4g}",
        help=f"Mean over the images, UEMs included; the full network costs {full * steps:.4g} in {steps} steps, "
        f"{full:.4g} per step.",
    )


def _shown(key: str) -> int:
    """The value that a number below will show; the policy's own controls come before it."""
    return resolve(f"live {key}", DEFAULTS[key], lambda text: int(text) if text.isdigit() else None)


def _budget(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    budget = _gflops("GFLOPs budget per image", "live budget", model)
    if selection.trace is None:
        st.caption("A budget needs a trace A that recorded u: this run has none yet.")
        return f"{kind}:{budget:g}@"
    st.caption(f"The smallest τ within this budget, from the summary of trace A, {selection.trace.path.name}.")
    return f"{kind}:{budget:g}@{selection.trace.path}"


def _calibrated(selection: Selection) -> None:
    assert selection.checkpoint is not None
    if not calibration_file(selection.checkpoint).exists():
        offer_calibration("This policy needs the calibration of the checkpoint.", selection.checkpoint)


def _excess(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    delta = inputs.slider(
        "Excess δ",
        (-0.5, 2.0, 0.05),
        "live delta",
        0.25,
        format="%.2f",
        help="A sample exits when its u is ≤ (1+δ) × the expected u of the deepest layer at that timestep.",
    )
    _calibrated(selection)
    return f"{kind}:{round(delta, 2):g}"


def _stopping(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    budget = _gflops("GFLOPs per image", "live stopping", model)
    _calibrated(selection)
    return f"{kind}:{budget:g}"


def _oracle(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    budget = _gflops("GFLOPs per image", "live oracle", model)
    metas, _ = cache.metas(selection.run)
    recordings = [name for name, meta in metas.items() if meta.has_deviations]
    if not recordings:
        solver = resolve("live solver", next(iter(SOLVERS)), lambda name: name if name in SOLVERS else None)
        steps, seed, count = map(_shown, DEFAULTS)
        settings = SamplingSettings(
            solver=solver, steps=steps, seed=seed, num_samples=count, record="full", deviations=True
        )
        sentence = "The oracle needs a recording with deviations, of the same seed, solver and steps."
        offer_sampling(sentence, selection.run, settings, f"{solver}{steps}-deviations-seed{seed}")
        return f"{kind}:{budget:g}@"
    name = inputs.selectbox("Recording", recordings, "live recording")
    return f"{kind}:{budget:g}@{selection.run.path / 'traces' / name}"


def _other(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    """A policy without a control of its own: its argument as text."""
    usage = POLICIES[kind].usage.partition(":")[2]
    argument = inputs.text_input(f"{kind}: {usage}", f"live {kind}", linked=(), help=POLICIES[kind].help)
    return f"{kind}:{argument.strip()}"


def _dual(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    switch = inputs.slider(
        "Switch at timestep",
        (0, schedule.num_timesteps, 1),
        "live switch",
        schedule.num_timesteps // 2,
        help="Timesteps from this one up, the first steps of sampling, use the shallow network.",
    )
    runs, _ = list_runs(cache.runs_root())
    paths = {f"{run.name}, {path.stem}": path for run in runs for path in reversed(run.checkpoints)}
    others = [name for name, path in paths.items() if path != selection.checkpoint]
    chosen = inputs.selectbox("Shallow network", list(paths), "live shallow", next(iter(others), None))
    return f"{kind}:{switch}:{paths[chosen]}"


def _every(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    period = inputs.slider(
        "Full network every k steps", (1, 10, 1), "live period", 2, help="The steps between exit at the lower layer."
    )
    return f"{kind}:{period}"


def _delta(kind: str, selection: Selection, model: EarlyExitModel, schedule: Schedule) -> str:
    highest, step, usual = DELTAS[kind]
    delta = inputs.slider(
        "Change δ",
        (0.0, highest, step),
        f"live {kind}",
        usual,
        format="%.3f",
        help="A sample exits while its signal since the last full evaluation is at most δ.",
    )
    assert selection.checkpoint is not None
    if kind != "first-block" and not drift_file(selection.checkpoint).exists():
        offer_calibration("This policy needs the drift of the checkpoint's trajectories.", selection.checkpoint)
    return f"{kind}:{round(delta, 3):g}"


ARGUMENTS: dict[str, Callable[[str, Selection, EarlyExitModel, Schedule], str]] = {
    "never": _never,
    "threshold": _threshold,
    "patience": _threshold,
    "batch-mean": _threshold,
    "fixed": _fixed,
    "schedule": _schedule,
    "budget": _budget,
    "excess": _excess,
    "stopping": _stopping,
    "oracle": _oracle,
    "dual": _dual,
    "every": _every,
    "drift": _delta,
    "first-block": _delta,
    "teacache": _delta,
}


def _bounds(kind: str, last: int) -> str:
    """`,min:i` and `,max:i`, for policies that decide per sample."""
    if kind in (*WITHOUT_EXITS, "fixed"):
        return ""
    lowest, highest = inputs.range_slider(
        "Exit between layers",
        0,
        last,
        "live bounds",
        help=f"No sample exits before the lower layer, all exit at the upper one; {last} means no early exit.",
    )
    return f",min:{lowest}" * (lowest > 0) + f",max:{highest}" * (highest < last)
