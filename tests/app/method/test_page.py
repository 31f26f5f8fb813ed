"""*Method*: its figures show the model's outputs for the selected image and timestep."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

import deediff
from app.views.method.explained import explain
from deediff.checkpoints import save_checkpoint
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.models import EarlyExitModel, UViT, UViTConfig
from tests.app.helpers import BLOCKS, FULL, figure, open_app, sentences, shown_tiles, write_run

SAMPLE, TIMESTEP = 2, 499


def numbers(spec: dict, name: str) -> np.ndarray:
    """The y of a line of a figure."""
    line = next(trace for trace in spec["data"] if trace.get("name", "").startswith(name))
    return np.frombuffer(base64.b64decode(line["y"]["bdata"]), "<f4")


def by_hand(root: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """By hand: errors (N+1,), u (N,), x_t and ᾱ_t of the sample."""
    model, schedule = deediff.load(root / "toy"), Schedule()
    png = deediff.read_trace(root / "toy" / "traces" / FULL).samples(range(SAMPLE, SAMPLE + 1))["png"].iloc[0]
    x0 = torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).float()[None, None] / 127.5 - 1
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(SAMPLE))
    alpha_bar = float(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[TIMESTEP])
    x = alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise
    answers, u = model.all_exits(x, torch.tensor([TIMESTEP]))
    assert schedule.num_timesteps == 1000
    return (answers - noise).abs().tanh().mean(dim=(1, 2, 3, 4)), u[:, 0], x, alpha_bar


def open_method(**link: str) -> AppTest:
    app = open_app("method", trace=FULL, sample=str(SAMPLE), t=str(TIMESTEP), **link)
    assert not app.error
    return app


def test_u_and_the_real_error_are_the_models(runs: Path) -> None:
    errors, u, _, _ = by_hand(runs)
    spec = figure(open_method(), "u and error")
    np.testing.assert_allclose(numbers(spec, "u,"), u, atol=1e-5)
    np.testing.assert_allclose(numbers(spec, "û,"), errors, atol=1e-5)
    go.Figure(spec)  # every attribute is one that Plotly knows


def test_exits_that_learned_the_full_network_are_compared_with_it(runs: Path) -> None:
    """The error of the last entry, the full network itself, is 0; those of the exits are distances from it."""
    (file,) = (runs / "toy" / "checkpoints").glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"exit_target": "full"}))
    _, _, x, _ = by_hand(runs)
    answers, _ = deediff.load(runs / "toy").all_exits(x, torch.tensor([TIMESTEP]))
    errors = (answers - answers[-1]).abs().tanh().mean(dim=(1, 2, 3, 4))
    np.testing.assert_allclose(numbers(figure(open_method(), "u and error"), "û,"), errors, atol=1e-5)
    assert errors[-1] == 0


def test_the_noisy_image_and_its_target_are_on_screen(runs: Path) -> None:
    _, _, x, alpha_bar = by_hand(runs)
    app = open_method()
    tiles = shown_tiles(app, "method noise")
    noisy = np.asarray(Image.open(io.BytesIO(base64.b64decode(tiles[1]["src"].partition(",")[2]))), np.int16)
    expected = ((x[0, 0].clamp(-1, 1) + 1) * 127.5).round().numpy()
    assert np.abs(noisy - expected).max() <= 1
    text = " ".join(m.value for m in app.markdown)
    assert f"of the image is {alpha_bar**0.5:.3f} and that of the noise {(1 - alpha_bar) ** 0.5:.3f}" in text


def test_the_coefficients_are_those_of_the_schedule(runs: Path) -> None:
    spec = figure(open_method(), "coefficients")
    image, noise = numbers(spec, "image"), numbers(spec, "noise")
    np.testing.assert_allclose(image**2 + noise**2, 1, atol=1e-5)
    np.testing.assert_allclose(image, Schedule().alphas_bar.sqrt(), atol=1e-6)
    assert spec["layout"]["shapes"][0]["x0"] == TIMESTEP


def test_the_network_is_drawn_with_the_exit_that_this_image_takes(runs: Path) -> None:
    _, u, _, _ = by_hand(runs)
    tau = float(np.sort(u)[3]) + 1e-4
    tau = round(np.ceil(tau / 0.005) * 0.005, 3)
    leaves = int(np.flatnonzero(u.numpy() <= np.float32(tau))[0])
    app = open_method(tau=f"{tau:g}")
    cost = model_cost(deediff.load(runs / "toy"))
    price = float(cost.at_exit(with_uem=True)[leaves])
    text = " ".join(m.value for m in app.markdown)
    assert f"exits at layer {leaves}, at a cost of {price:.4g} GFLOPs" in text
    spec = figure(app, "network")
    go.Figure(spec)
    run, skipped = (trace for trace in spec["data"] if "textfont" in trace)
    assert (run["marker"]["symbol"], skipped["marker"]["symbol"]) == ("square", "square-open")
    assert run["text"] == [str(i) for i in range(leaves)]
    assert skipped["text"] == [str(i) for i in range(leaves, BLOCKS)]
    arcs = [shape for shape in spec["layout"]["shapes"] if shape["type"] == "path"]
    assert len(arcs) == BLOCKS // 2  # one long skip for every block after the middle


def test_a_layer_shows_its_answer(runs: Path) -> None:
    errors, u, _, _ = by_hand(runs)
    app = open_method(layer="5")
    captions = [tile["caption"] for tile in shown_tiles(app, "method exit")]
    assert captions == [
        f"x_t at t = {TIMESTEP}",
        "prediction of exit 5",
        f"its error: û = {errors[5]:.3f}",
        f"UEM: u = {u[5]:.3f}",
    ]
    deepest = shown_tiles(open_method(layer=str(BLOCKS)), "method exit")
    assert deepest[2]["caption"] == f"its error: û = {errors[-1]:.3f}"
    assert len(deepest) == 3  # there is no UEM after the last block


def test_maps_of_u_average_to_u_over_image_tokens(runs: Path) -> None:
    model = deediff.load(runs / "toy")
    png = deediff.read_trace(runs / "toy" / "traces" / FULL).images(range(1))[0]
    e = explain(model, Schedule(), png, TIMESTEP, seed=0)
    tokens = e.u_maps[0].size
    time_token = e.u * (tokens + 1) - e.u_maps.sum(axis=(1, 2))  # u of the time token
    assert ((time_token > 0) & (time_token < 1)).all()
    assert e.exit_layer(1.0) == 0
    assert e.exit_layer(0.0) == BLOCKS


def test_a_class_conditional_model_without_exits_is_explained() -> None:
    config = UViTConfig(embed_dim=16, patch_size=8, num_heads=2, in_chans=3, img_size=16, depth=2, num_classes=3)
    model = EarlyExitModel(UViT(config)).eval()
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, "PNG")
    e = explain(model, Schedule(), buffer.getvalue(), 10, seed=0, label=2)
    assert e.predictions.shape == (1, 3, 16, 16)
    assert len(e.u) == 0
    assert e.u_maps is None
    with pytest.raises(UserError, match="shape"):
        explain(model, Schedule(), png=_grey(), timestep=10, seed=0)


def _grey() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_run_without_exits_or_images_says_what_is_missing(runs: Path) -> None:
    write_run(runs / "bare", exits=False)
    app = open_app("method", run="bare")
    assert "no trace of this run has one" in sentences(app)
    (runs / "toy" / "checkpoints" / "100.json").unlink()
    app = open_app("method", run="toy")
    assert "no checkpoint" in sentences(app)


def test_v_prediction_has_its_own_target(runs: Path) -> None:
    model = deediff.load(runs / "toy")
    model.prediction = "v"
    save_checkpoint(runs / "toy" / "checkpoints" / "200.safetensors", model, Schedule(), 200, 1)
    assert read_json(runs / "toy" / "checkpoints" / "200.json")["prediction"] == "v"
    app = open_method(checkpoint="200")
    assert shown_tiles(app, "method noise")[2]["caption"] == "target: the velocity v"
