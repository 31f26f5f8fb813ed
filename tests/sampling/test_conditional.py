"""Class-conditional sampling and classifier-free guidance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deediff.diffusion.noise import sample_noise
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies import Threshold
from deediff.sampling import Step, sample
from deediff.sampling.condition import Condition
from deediff.sampling.forward import predict
from deediff.sampling.request import Request
from deediff.sampling.sampler import prepare_sampling
from deediff.settings import SamplingSettings
from tests.conftest import TINY, make_model
from tests.sampling.common import CONDITIONAL, MODEL, Case, exits_by_definition

CLASSES = {"classes": [2, 0], "num_samples": 6, "policy": "threshold:0.5", "steps": 4, "seed": 2}


def conditional_steps(model: EarlyExitModel, **kwargs: object) -> list[Step]:
    return list(sample(model, **{**CLASSES, **kwargs}))  # type: ignore[arg-type]


def test_the_class_of_a_sample_depends_on_its_number_only(conditional_case: Case) -> None:
    together, alone = (conditional_steps(conditional_case.conditional, batch_size=size) for size in (6, 1))
    for k in range(6):
        torch.testing.assert_close(together[-1].x[k], alone[4 * k + 3].x[0], atol=1e-3, rtol=1e-3)
    a, b = (conditional_steps(conditional_case.conditional, policy="never", classes=c)[-1].x for c in ([2, 0], [2, 1]))
    same = torch.isclose(a, b, atol=1e-3).flatten(1).all(1)
    assert same.tolist() == [True, False] * 3


@pytest.mark.parametrize("record", ["exit", "full"])
def test_guidance_combines_both_halves_and_they_leave_together(conditional_case: Case, record: str) -> None:
    """ε = ε(∅) + w (ε(y) − ε(∅)), and a pair exits once both u are at most τ."""
    model = conditional_case.conditional
    x, labels = sample_noise(3, range(8), 0, model.image_shape), torch.tensor([2, 0] * 4)
    t = torch.full((8,), 700)
    eps_y, u_y = model.all_exits(x, t, labels)
    eps_0, u_0 = model.all_exits(x, t, torch.full((8,), 3))
    u = torch.maximum(u_y, u_0)
    tau = float(u.amin(0).median()) + 0.01
    condition = Condition(labels, guidance=2.5, null_label=3)
    p = predict(model, x, Request(Threshold(tau), 0, 700, np.arange(8), record, condition=condition))  # type: ignore[arg-type]
    expected = exits_by_definition(u, tau)
    assert len(expected.unique()) > 2
    assert torch.equal(p.exit_layer, expected)
    combined = eps_0 + 2.5 * (eps_y - eps_0)
    torch.testing.assert_close(p.output, combined[expected, torch.arange(8)], atol=1e-3, rtol=1e-3)
    known = ~p.uncertainty.isnan()
    torch.testing.assert_close(p.uncertainty[known], u.T[known], atol=1e-5, rtol=1e-4)
    assert known.all() == (record == "full")


def test_a_guidance_of_one_is_no_guidance_and_costs_twice(conditional_case: Case) -> None:
    plain, guided = (
        conditional_steps(conditional_case.conditional, policy="never", guidance=w)[-1].x for w in (None, 1.0)
    )
    torch.testing.assert_close(guided, plain, atol=1e-3, rtol=1e-3)
    settings = [SamplingSettings(steps=2, guidance=guidance) for guidance in (None, 1.0)]
    cost, twice = (prepare_sampling(conditional_case.conditional, each).cost() for each in settings)
    assert twice.full == pytest.approx(2 * cost.full)


@pytest.mark.parametrize(
    ("model", "kwargs", "sentence"),
    [
        (CONDITIONAL, {"classes": [4]}, r"the classes are \[4\], expected some of 0 … 3"),
        (CONDITIONAL, {"guidance": -1.0}, "the guidance scale is -1.0"),
        (MODEL, {"classes": [0]}, "this model is unconditional"),
        (MODEL, {"guidance": 2.0}, "this model is unconditional"),
        (make_model(config=replace(TINY, num_classes=4)), {"guidance": 2.0}, "a label that means no class"),
    ],
)
def test_classes_that_do_not_fit_the_model_are_refused(
    model: EarlyExitModel, kwargs: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        sample(model, **kwargs)  # type: ignore[arg-type]
