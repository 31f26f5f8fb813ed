"""Mutation tests: introduces known bugs one at a time, and fails if the tests do not detect one.

Each mutant is one replacement in one file of a copy of the repository, and the tests that must fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutant:
    """Replaces `old`, which occurs once in `file`, with `new`; `tests` must then fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


FORWARD = "deediff/sampling/forward.py"

MUTANTS = [
    Mutant(
        "exits with target full learn the drawn noise",
        "deediff/models/objectives.py",
        "            target = predictions[-1].detach()\n",
        "            target = x if target is None else target\n",
        "tests/trainer/test_full_target.py",
    ),
    Mutant(
        "a timestep head has the same map at every timestep",
        "deediff/models/uvit.py",
        "        position = t / self.spacing ",
        "        position = 0 * t / self.spacing ",
        "tests/models/test_head_kinds.py",
    ),
    Mutant(
        "without data, every step trains on the same trajectories",
        "trainer/trajectories.py",
        "    rng = seeded_generator(config.seed, 2, step)",
        "    rng = seeded_generator(config.seed, 2, 0)",
        "tests/trainer/test_no_data.py",
    ),
    Mutant(
        "a plan's exits are simulated: the full network runs at a step that has a readout",
        "deediff/sampling/sampler.py",
        "                    p = without_network(planned.readout, state, model.num_blocks)\n",
        "                    model(x, torch.full((len(x),), timestep))\n"
        "                    p = without_network(planned.readout, state, model.num_blocks)\n",
        "tests/sampling/test_plans.py",
    ),
    Mutant(
        "stale prediction: output:o reuses the first predictions in place of the last",
        "deediff/readouts/output.py",
        "        recent = state.earlier[-self.needs_earlier :]\n",
        "        recent = state.earlier[: self.needs_earlier]\n",
        "tests/readouts/test_readouts.py",
    ),
    Mutant(
        "the Gaussian readout forgets the noise",
        "deediff/calibration/gaussian.py",
        "            return a**0.5 * variance / (a * variance + 1 - a)\n",
        "            return a**0.5 * variance / (a * variance + 1)\n",
        "tests/readouts/test_readouts.py",
    ),
    Mutant(
        "a plan costs what its exit layers would",
        "deediff/sampling/planned.py",
        "    if all(step.decides for step in steps):\n",
        "    if True:\n",
        "tests/sampling/test_plans.py",
    ),
    Mutant(
        "an oracle takes a recording of other noise",
        "deediff/traces/pairing.py",
        "    return [name for name, x, y in pairs if x != y and not",
        "    return [name for name, x, y in pairs if x != x and not",
        "tests/traces/test_pairing.py",
    ),
    Mutant(
        "the oracle loses to the static schedule on its own measure",
        "deediff/policies/from_trace/oracle_exits.py",
        "    if more > 0:",
        "    if more > 1e9:",
        "tests/policies/test_oracle.py",
    ),
    Mutant(
        "the oracle exits at the cheapest layer below a price, not where deviation and price are least in total",
        "deediff/policies/from_trace/oracle_exits.py",
        "(deviation + price * cost).argmin(axis=-1)",
        "(deviation < price).argmax(axis=-1)",
        "tests/policies/test_oracle.py",
    ),
    Mutant(
        "the oracle leaves its budget where exits are equally good",
        "deediff/policies/from_trace/oracle_exits.py",
        "<= left  #",
        "< 0  #",
        "tests/policies/test_oracle.py",
    ),
    Mutant(
        "one exit for all is the deepest affordable one",
        "deediff/analysis/static.py",
        "static_layers(price, trace.cost.at_exit(with_uem=False), budget, spend=False)[0]",
        "static_layers(price, trace.cost.at_exit(with_uem=False), budget, spend=True)[0]",
        "tests/analysis/test_static.py",
    ),
    Mutant(
        "plans are validated on the noise by which they were chosen",
        "deediff/search/settings.py",
        "return 2 * self.seed + 1",
        "return 2 * self.seed",
        "tests/search/test_search.py",
    ),
    Mutant(
        "a search ignores its second distance",
        "deediff/search/score.py",
        "score *= max(1.0, guard / allowed)",
        "score *= 1.0",
        "tests/search/test_score.py",
    ),
    Mutant(
        "a plan that exploits one distance counts as equal",
        "deediff/plans/front.py",
        "for name in (self.metric, *self.guards))",
        "for name in (self.metric,))",
        "tests/trainer/suites/test_plan_claims.py",
    ),
    Mutant(
        "a plan beyond its budget is chosen",
        "deediff/search/front.py",
        "and plan.cost <= budget + TOLERANCE]\n    return",
        "]\n    return",
        "tests/search/test_front.py",
    ),
    Mutant(
        "guided and unguided traces are paired",
        "deediff/traces/pairing.py",
        "        settings.guidance,\n",
        "        None,\n",
        "tests/traces/test_pairing.py",
    ),
    Mutant(
        "seconds of another machine are compared",
        "deediff/traces/pairing.py",
        'MACHINE = ("batch_size", "device", "threads", "dtype")',
        'MACHINE = ("batch_size", "threads", "dtype")',
        "tests/traces/test_pairing.py",
    ),
    Mutant(
        "simulated exit: blocks are computed for exited samples, too",
        FORWARD,
        "            mb.state = network.blocks[i - 1](mb.state, skip)\n",
        "            absent = torch.zeros(len(self.x) - len(mb.state), *mb.state.shape[1:])\n"
        "            network.blocks[i - 1](torch.cat([mb.state, absent]), "
        "None if skip is None else torch.cat([skip, absent]))\n"
        "            mb.state = network.blocks[i - 1](mb.state, skip)\n",
        "tests/sampling/test_forward.py",
    ),
    Mutant(
        "batch-mean decision",
        "deediff/policies/threshold.py",
        "        return state.uncertainty <= float(self.threshold)\n",
        "        return (state.uncertainty.mean() <= float(self.threshold)).expand(len(state.uncertainty))\n",
        "tests/sampling/test_sampling.py",
    ),
    Mutant(
        "first sample's timestep for all",
        "deediff/models/uvit.py",
        "emb = timestep_embedding(t, self.dim)",
        "emb = timestep_embedding(t[:1].expand(len(t)), self.dim)",
        "tests/models/test_uvit.py",
    ),
    Mutant(
        "first sample's timestep for all, in UEMs per timestep",
        "deediff/models/uems/mlp.py",
        "        if self.first_timestep:\n",
        "        if True:\n",
        "tests/models/test_uems.py",
    ),
    Mutant(
        "exit off by one: the UEM reads the output of its block",
        "deediff/models/early_exit.py",
        "u.append(self.uncertainty(i, state, t) if known",
        "u.append(self.uncertainty(max(i - 1, 0), state, t) if known",
        "tests/models/test_uvit.py",
    ),
    Mutant(
        "exit off by one: the next layer is recorded",
        FORWARD,
        "exit_layer = torch.from_numpy(self.exit_layer)",
        "exit_layer = torch.from_numpy(np.minimum(self.exit_layer + 1, self.network.num_blocks))",
        "tests/sampling/test_forward.py",
    ),
    Mutant(
        "batch-dependent noise",
        "deediff/diffusion/noise.py",
        "key=[seed, sample]",
        "key=[seed, sample - samples[0]]",
        "tests/sampling/test_sampling.py",
    ),
    Mutant(
        "undetached target",
        "deediff/diffusion/losses.py",
        "return target.detach() if detach else target",
        "return target",
        "tests/diffusion/test_diffusion.py",
    ),
    Mutant(
        "histogram without the running minimum",
        "deediff/traces/summary.py",
        "minimum = np.fmin.accumulate(uncertainty, axis=-1)",
        "minimum = uncertainty",
        "tests/traces/test_traces.py",
    ),
    Mutant(
        "GFLOPs without UEMs",
        "deediff/cost/cost.py",
        "uems = np.cumsum(self.uems) if with_uem and self.uems else np.zeros(n)",
        "uems = np.zeros(n)",
        "tests/traces/test_traces.py tests/cost/test_cost.py",
    ),
]
for _file in sorted(Path(__file__).with_suffix("").glob("*.toml")):  # of single features
    MUTANTS += [Mutant(**found) for found in tomllib.loads(_file.read_text(encoding="utf-8"))["mutant"]]


def survives(mutant: Mutant) -> bool:
    """Whether the tests pass with the mutant applied."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repo"
        for part in ("app", "deediff", "trainer", "tests", "pyproject.toml"):
            source = REPO / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, _parent(copy) / part)
        path = copy / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            sys.exit(f"mutant {mutant.name!r} does not apply: its text does not occur exactly once in {mutant.file}")
        path.write_text(text.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()]
        environment = {**os.environ, "PYTHONPATH": str(copy), "CI": ""}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):  # 1: tests failed; other codes: an error before any test ran
            sys.exit(f"mutant {mutant.name!r} stopped the test run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.returncode == 0


def _parent(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> int:
    """Returns the exit code: 1 if a mutant survives."""
    alive = []
    for mutant in MUTANTS:
        survived = survives(mutant)
        print(f"{'SURVIVED' if survived else 'caught  '}  {mutant.name}", flush=True)
        if survived:
            alive.append(mutant)
    print(f"{len(MUTANTS) - len(alive)} of {len(MUTANTS)} mutants caught")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
