"""Samples of a model of latents are stored as arrays, not as pictures with an alpha channel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import deediff
from deediff.errors import UserError
from tests.conftest import TINY, make_model, make_run, record


@pytest.mark.parametrize("channels", [4, 8])
def test_latents_are_stored_exactly(tmp_path: Path, channels: int) -> None:
    model = make_model(config=replace(TINY, in_chans=channels))
    run = make_run(tmp_path / "run", model)
    trace = record(run, "latents")
    found = trace.samples(range(0, trace.meta.num_samples))
    assert found["png"].isna().all()
    settings = trace.meta.settings
    assert settings is not None
    steps = deediff.sample(deediff.load(run), replace(settings, spacing="trailing"))
    expected = np.concatenate([s.x.numpy() for s in steps if s.step == len(trace.timesteps) - 1])
    np.testing.assert_allclose(trace.latents(range(0, len(expected))), expected, atol=1e-5)
    assert np.abs(expected).max() > 1  # clamped to a picture, these would be lost


def test_a_trace_of_pictures_has_no_latents(run_folder: Path) -> None:
    trace = record(run_folder, "pictures")
    assert trace.samples(range(4))["png"].notna().all()
    with pytest.raises(UserError, match="holds no latents"):
        trace.latents(range(4))
