"""Opens the explorer without a browser, and reads its screen."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from streamlit.testing.v1 import AppTest

import deediff
from deediff.calibration.file import Calibration, calibration_file
from deediff.calibration.measure import HeldOutImages, calibrate_model
from deediff.checkpoints import find_checkpoint, load_checkpoint, save_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.json_files import write_json
from deediff.models import EarlyExitModel, UViT, UViTConfig

APP = Path(__file__).resolve().parents[2] / "app"
STEPS, SAMPLES, BLOCKS = 4, 6, 13
FULL, EXITS = "ddim4-never", "ddim4-threshold-0.1"


def write_run(folder: Path, exits: bool = True) -> Path:
    """An untrained run whose uncertainties spread around 0.1."""
    torch.manual_seed(0)
    config = UViTConfig(embed_dim=16, patch_size=8, num_heads=2, in_chans=1, depth=12)
    model = EarlyExitModel(UViT(config))
    if exits:
        model.add_exits({"name": "mlp", "scope": "layer"})
        assert model.uem is not None
        torch.nn.init.normal_(model.uem.weight, std=0.25)
        model.uem.bias.data.fill_(-2.2)
    save_checkpoint(folder / "checkpoints" / "100.safetensors", model, Schedule(), 100, 6400)
    write_json(folder / "run.json", {"format_version": 1, "status": "done", "dataset": "toy", "images_seen": 6400})
    return folder


def open_app(page: str | None = None, **link: str) -> AppTest:
    """The app after its first run, on a page, opened by a link."""
    app = AppTest.from_file(str(APP / "explorer.py"), default_timeout=60)
    for key, value in link.items():
        app.query_params[key] = value
    app.run()
    if page is not None:
        app.switch_page(f"views/{page}/page.py")
        for key, value in link.items():  # the first page has dropped what it does not use
            app.query_params[key] = value
        app.run()
    assert not app.exception
    return app


def metric(app: AppTest, label: str, which: int = 0) -> str:
    """The value of a headline figure; `which` counts figures of the same label from the top."""
    return [m.value for m in app.metric if m.label == label][which]


def titles(app: AppTest) -> list[str]:
    """The headings below the page's title."""
    return [text.value for text in (*app.header, *app.subheader)]


def sentences(app: AppTest) -> str:
    """All errors, warnings, notes and captions."""
    return " ".join(box.value for boxes in (app.error, app.warning, app.info) for box in boxes)


def figure(app: AppTest, panel: str) -> dict[str, Any]:
    """The figure of a panel, as it was sent to the browser."""
    found = [e.proto for e in app.get("bidi_component") if e.proto.id.endswith(f"-plot {panel}")]
    assert len(found) == 1, f"{panel} is on the page {len(found)} times"
    return json.loads(found[0].json)["figure"]


def unpacked(values: Any) -> np.ndarray:
    """An array out of a figure."""
    if not isinstance(values, dict):
        return np.asarray(values)
    shape = [int(n) for n in values["shape"].split(",")] if "shape" in values else -1
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).reshape(shape)


def line(app: AppTest, panel: str, name: str) -> np.ndarray:
    """The y values of a named line."""
    found = [trace for trace in figure(app, panel)["data"] if trace.get("name") == name]
    assert len(found) == 1, [trace.get("name") for trace in figure(app, panel)["data"]]
    return unpacked(found[0]["y"])


def select(app: AppTest, **point: int) -> AppTest:
    """Click in a figure, and run the script again."""
    app.session_state["clicked"] = {"t" if key == "timestep" else key: value for key, value in point.items()}
    return app.run()


def in_the_link(app: AppTest) -> dict[str, str]:
    """The parameters in the URL."""
    return {key: values[0] if isinstance(values, list) else values for key, values in app.query_params.items()}


def counted_exits(trace: Path, threshold: float) -> np.ndarray:
    """(samples · steps,) exit layers at a threshold, from the Parquet rows alone."""
    lists = [pq.read_table(file)["uncertainty"].to_pylist() for file in sorted(trace.glob("part-*.parquet"))]
    leaves = np.concatenate([np.asarray(rows, np.float32) for rows in lists]) <= np.float32(threshold)
    return np.where(leaves.any(axis=1), leaves.argmax(axis=1), BLOCKS)


def times(runs: Path, trace: str = FULL) -> list[int]:
    return deediff.read_trace(runs / "toy" / "traces" / trace).timesteps


def shown_tiles(app: AppTest, grid: str) -> list[dict]:
    """The tiles of a grid, as they were sent to the browser."""
    found = [e.proto for e in app.get("bidi_component") if e.proto.id.endswith(f"-{grid}")]
    assert len(found) == 1
    return json.loads(found[0].json)["tiles"]


def calibrate_run(runs: Path) -> Calibration:
    """Write a calibration beside the run's checkpoint."""
    checkpoint = find_checkpoint(runs / "toy")
    model, info = load_checkpoint(checkpoint)
    images = torch.randint(0, 256, (16, *model.image_shape), generator=torch.Generator().manual_seed(1))
    schedule = Schedule(**info["schedule"])
    found = calibrate_model(model, schedule, HeldOutImages(images.to(torch.uint8)), [0, 300, 600, 999])
    source = {"checkpoint_sha256": info["sha256"], "dataset": "noise", "split": "test"}
    replace(found, info={**found.info, **source}).save(calibration_file(checkpoint))
    return Calibration.load(calibration_file(checkpoint))


def press(app: AppTest, key: str = "sample") -> AppTest:
    """Press a button and wait for the end of the job that it starts."""
    app.button(key=key).click().run()
    assert not app.exception
    app.session_state["job"].join(60)
    return app.run()


def sort_images(app: AppTest, name: str, reverse: bool = False) -> list[dict]:
    """The tiles of trace A in this order."""
    app.selectbox(key="order").set_value(name)
    app.toggle(key="reverse").set_value(reverse).run()
    assert not app.exception
    return shown_tiles(app, "images A")
