"""The lens on *Sample*: its cells are those of the sample, and a forced exit is sampled again."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import deediff
from app.views.sample.lens.picture import BORDER, GAP
from deediff.analysis.lens import diffusion_lens
from deediff.analysis.trajectory import ExitChoice, Trajectory, follow, force_exit
from deediff.checkpoints import load_checkpoint
from deediff.diffusion.schedule import Schedule
from tests.app.helpers import BLOCKS, EXITS, FULL, figure, in_the_link, open_app, sentences, shown_tiles, times, titles
from tests.conftest import sample_trace

NUMBER, SIDE = 4, 32  # the sample, and the height of its image


def open_lens(trace: str = EXITS, **link: str) -> AppTest:
    return open_app("sample", trace=trace, sample=str(NUMBER), sample_view="lens", **link)


def trajectory_of(runs: Path, trace: str = EXITS) -> Trajectory:
    model, info = load_checkpoint(runs / "toy")
    found = follow(deediff.read_trace(runs / "toy" / "traces" / trace), NUMBER, model, Schedule(**info["schedule"]))
    assert found is not None
    return found


def cell_of(app: AppTest, row: int, column: int) -> np.ndarray:
    """(H,W) the picture's pixels of a cell; row 0 is at the bottom."""
    image = figure(app, "diffusion lens")["layout"]["images"][0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["source"].partition(",")[2]))))
    rows, columns = image["sizey"], image["sizex"]
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    top, left = (rows - 1 - row) * height, column * width
    edge, size = BORDER + GAP, height - 2 * (BORDER + GAP)
    inner = pixels[top + edge : top + edge + size, left + edge : left + edge + size, 0]
    return inner[:: size // SIDE, :: size // SIDE]


def test_the_picture_holds_the_cells_of_the_sample(runs: Path) -> None:
    trajectory = trajectory_of(runs)
    lens = diffusion_lens(trajectory)
    assert lens is not None
    app = open_lens()
    assert not app.exception
    assert not app.error
    shown = figure(app, "diffusion lens")
    assert shown["layout"]["xaxis"]["ticktext"] == [str(t) for t in times(runs, EXITS)]
    assert shown["layout"]["yaxis"]["ticktext"] == [str(i) for i in range(BLOCKS)] + [f"{BLOCKS} full"]
    for column, layer in enumerate(trajectory.exit_layers):
        for row in (0, int(layer), BLOCKS):
            assert np.abs(cell_of(app, row, column).astype(int) - lens.images[row, column, 0]).max() <= 2
        assert "taken by the sampling" in shown["data"][0]["text"][int(layer)][column]
    assert shown["data"][2]["y"] == trajectory.exit_layers.tolist()  # the path


def test_rows_and_columns_can_be_thinned_and_the_link_keeps_it(runs: Path) -> None:
    app = open_lens(lens_columns="6", lens_rows="3", lens_border="loss", lens_show="difference", t="499")
    shown = figure(app, "diffusion lens")["layout"]
    assert shown["yaxis"]["ticktext"] == ["1", "4", "7", "10", "13 full"]
    link = in_the_link(app)
    assert (link["lens_columns"], link["lens_rows"], link["lens_border"], link["lens_show"]) == (
        "6",
        "3",
        "loss",
        "difference",
    )
    assert len(np.unique(cell_of(app, 4, 0))) == 1  # the full network does not differ from itself …
    assert len(np.unique(cell_of(app, 1, 0))) > 1  # … but layer 4 does


def test_a_forced_exit_is_sampled_again_beside_the_sample(runs: Path) -> None:
    trajectory, t = trajectory_of(runs), times(runs, EXITS)[1]
    layer = 2 if trajectory.exit_layers[1] != 2 else 9
    app = open_lens(t=str(t), layer=str(layer))
    app.button(key="leave here").click().run()
    assert not app.exception
    assert in_the_link(app)["forced"] == f"{t}:{layer}:head"
    other = force_exit(trajectory, 1, ExitChoice(layer))
    assert other is not None
    words = " ".join(element.value for element in [*app.header, *app.caption])
    assert f"Leaving by layer {layer}, by its head at t = {t}" in words
    distance = np.sqrt(np.square(other.image.astype(float) - trajectory.image).mean())
    assert f"changes the image by {distance:.2f} grey levels (RMS)" in words
    assert f"{trajectory.gflops.sum():.3f} → {other.gflops.sum():.3f} GFLOPs per image" in words
    assert len(shown_tiles(app, "forced images")) == 3
    captions = [tile["caption"].split(" · ")[1] for tile in shown_tiles(app, "forced film 1")]
    assert captions == [str(layer) for layer in other.exit_layers]
    app.button(key="forced close").click().run()
    assert "forced" not in in_the_link(app)
    assert "Leaving by" not in " ".join(titles(app))


def test_a_link_forces_the_exit_and_the_one_taken_changes_nothing(runs: Path) -> None:
    t, layer = times(runs, EXITS)[2], int(trajectory_of(runs).exit_layers[2])
    app = open_lens(forced=f"{t}:{layer}:head")
    assert any("changes nothing: the sampling did so anyway" in title for title in titles(app))


def test_a_plan_has_rows_for_its_readouts(runs: Path) -> None:
    plan = deediff.Plan(
        (deediff.PlanStep(999, 0, "input"), deediff.PlanStep(600), deediff.PlanStep(200, 0, "output:0")),
        num_blocks=BLOCKS,
    )
    run = runs / "toy"
    sample_trace(run, run / "traces" / "planned", 6, "never", plan=plan, steps=3)
    app = open_lens("planned")
    shown = figure(app, "diffusion lens")
    assert shown["layout"]["yaxis"]["ticktext"][:3] == ["input", "output:0", "0"]
    assert in_the_link(app)["lens_readouts"] == "input,output:0"
    assert shown["data"][2]["y"] == [0, 2 + BLOCKS, 1]
    hidden = figure(open_lens("planned", lens_readouts="input"), "diffusion lens")
    assert hidden["data"][2]["y"] == [0, 1 + BLOCKS, None]  # no path over the row of another readout


@pytest.mark.parametrize(
    ("link", "message"),
    [({"forced": "5:3:head"}, "forced = 5:3:head"), ({"forced": "nonsense"}, "forced = nonsense")],
)
def test_a_link_that_forces_nothing_possible_is_reported(link: dict[str, str], message: str, runs: Path) -> None:
    app = open_lens(**link)
    assert message in sentences(app)


def test_an_exit_that_cannot_be_forced_is_a_sentence(runs: Path) -> None:
    app = open_lens(forced=f"{times(runs, EXITS)[0]}:0:output:1")
    assert "too few earlier predictions" in sentences(app)
    assert not app.exception


def test_the_full_network_has_a_lens_too(runs: Path) -> None:
    app = open_lens(FULL)
    assert figure(app, "diffusion lens")["data"][2]["y"] == [BLOCKS] * len(times(runs))


def test_a_lens_of_other_weights_is_refused_in_a_sentence(runs: Path) -> None:
    checkpoint = runs / "toy" / "checkpoints" / "100.json"
    sha = deediff.read_trace(runs / "toy" / "traces" / EXITS).meta.checkpoint_sha256
    checkpoint.write_text(checkpoint.read_text().replace(sha, "0" * 64))
    app = open_lens()
    assert not app.exception
    assert "No lens" in sentences(app)
    assert "not among the run's checkpoints" in sentences(app)
