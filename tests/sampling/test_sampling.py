"""The laws of the sampler: seeds, batches, recording, and input that is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deediff.datasets import to_uint8
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.prediction import training_target
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.policies import make_policy
from deediff.sampling import Step, sample
from tests.conftest import TINY, make_model
from tests.sampling.common import MODEL, Case, assert_same_x


def test_recording_everything_changes_nothing(case: Case) -> None:
    fields = {"num_samples": 6, "policy": f"threshold:{case.tau}", "steps": 5, "batch_size": 6}
    exits, full = case.steps(**fields), case.steps(**fields, record="full", deviations=True)
    for a, b in zip(exits, full, strict=True):
        assert torch.equal(a.exit_layer, b.exit_layer)
        torch.testing.assert_close(a.x, b.x, atol=1e-4, rtol=1e-4)
        assert not b.uncertainty.isnan().any()
        assert b.deviation is not None
        assert (b.deviation > 0).all()


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpm-solver++"])
def test_a_batch_of_64_equals_64_of_one(case: Case, solver: str) -> None:
    """Decisions per sample, noise per sample: bit-equal noise, equal decisions, pixels within ±2."""
    settings = {"num_samples": 64, "policy": f"threshold:{case.tau}", "solver": solver, "steps": 6, "seed": 5}
    together = case.steps(batch_size=64, **settings)
    alone = case.steps(batch_size=1, **settings)
    exits_alone = torch.tensor([int(s.exit_layer) for s in alone]).view(64, 6)
    exits_together = torch.stack([s.exit_layer for s in together], 1)
    u = torch.stack([s.uncertainty for s in together], 1)  # (64, 6, N)
    edge = ((u - case.tau).abs() < 1e-5).any(-1).any(-1)
    assert edge.sum() <= 2
    assert torch.equal(exits_together[~edge], exits_alone[~edge])
    assert len(exits_together.unique()) >= 4
    images = to_uint8(together[-1].x).int()
    images_alone = torch.cat([to_uint8(s.x).int() for s in alone if s.step == 5])
    assert ((images - images_alone).abs().amax((1, 2, 3))[~edge] <= 2).all()


def test_noise_depends_on_seed_sample_and_draw_only() -> None:
    shape = (3, 4, 4)
    together = sample_noise(7, range(10, 20), 3, shape)
    for i, k in enumerate(range(10, 20)):
        assert torch.equal(together[i], sample_noise(7, [k], 3, shape)[0])
    distinct = [sample_noise(s, [k], d, shape) for s in (0, 1) for k in (0, 1) for d in (0, 1)]
    for i, a in enumerate(distinct):
        assert not any(torch.equal(a, b) for b in distinct[:i])
    many = sample_noise(0, range(2000), 0, shape)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


def test_images_do_not_depend_on_the_batch_size_or_the_order_of_work(case: Case) -> None:
    whole = torch.cat([s.x for s in case.steps(num_samples=7, batch_size=3, steps=4, solver="ddpm") if s.step == 3])
    backwards = [range(5, 7), range(0, 5)]
    parts = {s.samples: s.x for s in case.steps(num_samples=7, parts=backwards, steps=4, solver="ddpm") if s.step == 3}
    assert_same_x(whole, torch.cat([parts[range(0, 5)], parts[range(5, 7)]]))


def test_a_consumer_that_stops_asking_stops_the_work() -> None:
    stream = sample(MODEL, num_samples=4, steps=10)
    assert next(iter(stream)).step == 0
    stream.close()  # type: ignore[attr-defined]
    assert list(stream) == []


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"policy": "thresh:0.1"}, "unknown policy 'thresh:0.1', expected one of: never"),
        ({"policy": "threshold:1.5"}, r"threshold is 1.5, expected a number in \[0, 1\]"),
        ({"policy": "threshold:-0.1"}, "threshold is -0.1"),
        ({"policy": "threshold:nan"}, "threshold is nan"),
        ({"policy": "threshold:low"}, "'low' is not a number"),
        ({"policy": "fixed:14"}, "policy fixed:14: this model has only 13 blocks"),
        ({"num_samples": 0}, "the number of samples is 0, expected 1 or more"),
        ({"record": "all"}, "record is 'all'"),
        ({"solver": "euler"}, "unknown solver 'euler'"),
        ({"steps": 1001}, "steps is 1001"),
        ({"seed": -1}, "the seed is -1"),
    ],
)
def test_bad_input_is_refused_before_any_work(kwargs: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sample(MODEL, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(("policy", "missing"), [("threshold:0.1", "UEMs"), ("fixed:3", "output heads")])
def test_a_model_without_exits_can_only_run_in_full(policy: str, missing: str) -> None:
    plain = EarlyExitModel(UViT(TINY))
    with pytest.raises(UserError, match=f"needs {missing}, but this model has none"):
        sample(plain, policy=policy)
    make_policy("never").check(plain)
    make_policy("fixed:13").check(plain)


def test_a_network_that_breaks_down_is_named() -> None:
    broken = make_model()
    with torch.no_grad():
        broken.backbone.decoder_pred.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite for sample 5 at timestep 999"):
        list(sample(broken, num_samples=2, parts=[range(5, 7)], steps=3))


def test_a_stream_can_be_cancelled_and_tells_its_progress() -> None:
    seen: list[Step] = []
    for step in sample(MODEL, num_samples=5, steps=4, batch_size=2, cancelled=lambda: len(seen) == 6):
        seen.append(step)
    assert [(s.done, s.total) for s in seen] == [(k, 12) for k in range(1, 7)]


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_a_network_may_predict_x0_or_v_instead(kind: str) -> None:
    """The same knowledge in another parametrisation gives the same images: here, that x_0 is 0.3 everywhere."""
    schedule = Schedule()

    def knowing(kind: str) -> EarlyExitModel:
        model = make_model()
        model.prediction = kind

        def embed(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            return torch.stack([x, t[:, None, None, None].float().expand_as(x)], dim=1)

        def decode(state: torch.Tensor) -> torch.Tensor:
            x, a = state[:, 0], schedule.alphas_bar[int(state[0, 1, 0, 0, 0])].float()
            return training_target(kind, torch.full_like(x, 0.3), (x - a.sqrt() * 0.3) / (1 - a).sqrt(), a)

        net: Any = model.backbone
        net.embed, net.block, net.decode = embed, lambda i, state, skip=None: state, decode
        return model

    images = [[s.x for s in sample(knowing(k), num_samples=3, solver="ddpm", steps=20)] for k in ("epsilon", kind)]
    for a, b in zip(*images, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(images[1][-1], torch.full_like(images[1][-1], 0.3), atol=1e-3, rtol=1e-3)
