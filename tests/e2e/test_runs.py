"""*Runs* in a browser: rename, delete after confirmation, and progress of a running training."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from deediff.bench.browser import wait_until_drawn
from deediff.json_files import read_json, write_json
from deediff.quality.results import read_quality
from deediff.recording.job import sample_to_trace
from deediff.sampling import Step
from deediff.settings import SamplingSettings
from tests.e2e.conftest import SHOTS, TRACES, drawn, exported, meta_of, prices, recorded

pytestmark = pytest.mark.e2e
ROW = 33  # pixels of a row of a table


def open_page(page: Page, address: str, run: str = "mnist_tiny") -> None:
    page.goto(f"{address}/runs?run={run}")
    expect(page.locator(".st-key-run-table")).to_be_visible(timeout=60_000)
    wait_until_drawn(page)


def tick(page: Page, table: str, row: int) -> None:
    """Tick a row at its left end."""
    box = page.locator(f".st-key-{table}")
    box.scroll_into_view_if_needed()
    where = box.bounding_box()
    assert where is not None
    page.mouse.click(where["x"] + 16, where["y"] + ROW * (row + 1) + ROW / 2)
    wait_until_drawn(page)


def test_the_export_names_every_trace(tab: Page, served: str) -> None:
    open_page(tab, served)
    assert exported(tab, "traces")["trace"].tolist() == sorted(TRACES)
    tab.screenshot(path=SHOTS / "runs.png")


def megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def test_the_table_of_runs_is_what_the_files_say(tab: Page, served: str, copied: Path) -> None:
    open_page(tab, served)
    (row,) = exported(tab, "runs").to_dict("records")
    folder = copied / "mnist_tiny"
    info = json.loads((folder / "run.json").read_text())
    assert row["run"] == "mnist_tiny"
    assert row["parameters"] == sum(info["parameters"].values())
    for column in ("images_seen", "preset", "dataset", "status"):
        assert row[column] == info[column], column
    assert row["last_loss"] == pytest.approx(pd.read_parquet(folder / "metrics.parquet")["loss_total"].iloc[-1])
    assert row["checkpoints"] == len(list((folder / "checkpoints").glob("*.safetensors")))
    assert row["traces"] == len(list((folder / "traces").iterdir()))
    assert row["megabytes"] == pytest.approx(megabytes(folder))


def test_the_table_of_traces_is_what_rows_and_files_say(tab: Page, served: str, copied: Path) -> None:
    open_page(tab, served)
    table = exported(tab, "traces").set_index("trace")
    for trace in TRACES:
        row, folder, meta = table.loc[trace], copied / "mnist_tiny" / "traces" / trace, meta_of(copied, trace)
        exits, _ = recorded(copied, trace)
        price = prices(copied, trace, asked=bool(meta["policy_needs_uncertainty"]))
        metrics = json.loads((folder / "quality.json").read_text())["metrics"]
        assert {found["metric"]: row[found["metric"]] for found in metrics} == pytest.approx(
            {found["metric"]: found["value"] for found in metrics}
        ), trace
        assert row["images"] == len(exits) == meta["num_samples"]
        assert row["layer_ratio"] == pytest.approx(exits.mean() / meta["num_blocks"]), trace
        assert row["gflops_per_image"] == pytest.approx(price[exits].sum(axis=1).mean()), trace
        assert row["seconds_per_image"] == pytest.approx(meta["wall_seconds"] / len(exits)), trace
        assert row["megabytes"] == pytest.approx(megabytes(folder)), trace


def test_rename_and_delete_in_dialogs(tab: Page, served: str, copied: Path) -> None:
    traces = copied / "mnist_tiny" / "traces"
    shutil.copytree(traces / TRACES[0], traces / "zz")
    open_page(tab, served)
    expect(tab.get_by_text(f"{len(TRACES) + 1} traces, ")).to_be_visible()
    tick(tab, "trace-table", len(TRACES))
    tab.locator(".st-key-rename-trace button").click()
    dialog = tab.get_by_role("dialog")
    name = dialog.get_by_label("New name")
    name.fill("no/name")
    name.press("Enter")
    dialog.get_by_role("button", name="Rename").click()
    expect(dialog.get_by_text("not a valid folder name")).to_be_visible()
    name.fill("zzz")
    name.press("Enter")
    dialog.get_by_role("button", name="Rename").click()
    expect(dialog).to_have_count(0)
    assert sorted(path.name for path in traces.iterdir()) == [*sorted(TRACES), "zzz"]

    wait_until_drawn(tab)
    tick(tab, "trace-table", len(TRACES))
    tab.locator(".st-key-delete-trace button").click()
    expect(dialog.get_by_text("zzz", exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Keep").click()
    expect(dialog).to_have_count(0)
    assert (traces / "zzz").exists()
    wait_until_drawn(tab)
    tab.locator(".st-key-delete-trace button").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog).to_have_count(0)
    assert sorted(path.name for path in traces.iterdir()) == sorted(TRACES)


def test_an_evaluation_measures_what_was_chosen(tab: Page, served: str, copied: Path, image_folder: Path) -> None:
    open_page(tab, served)
    row = sorted(TRACES).index("ddim50-threshold-0.11")
    tick(tab, "trace-table", row)
    tab.locator(".st-key-evaluate-traces button >> visible=true").click()
    dialog = tab.get_by_role("dialog")
    for label, text in (("Metrics", "prc-mnist"), ("Real images", str(image_folder))):
        box = dialog.locator(f"input[aria-label='{label}']")
        box.fill(text)
        box.press("Enter")
        wait_until_drawn(tab)
    dialog.get_by_role("button", name="Evaluate").click()
    expect(dialog).to_have_count(0)
    expect(tab.get_by_text("ddim50-threshold-0.11: precision-mnist")).to_be_visible(timeout=120_000)
    found = read_quality(copied / "mnist_tiny" / "traces" / "ddim50-threshold-0.11")
    mine = {q.metric: q.value for q in found if q.reference == image_folder.name}
    assert sorted(mine) == ["precision-mnist", "recall-mnist"]
    wait_until_drawn(tab)
    tick(tab, "trace-table", row)


def test_a_training_is_found_and_followed_without_a_reload(tab: Page, served: str, copied: Path) -> None:
    open_page(tab, served)  # another run is ticked and selected
    tab.evaluate("window.same = true")
    run = copied / "training"
    info = read_json(copied / "mnist_tiny" / "run.json")
    curve = pd.read_parquet(copied / "mnist_tiny" / "metrics.parquet")
    write_json(run / "run.json", {**info, "status": "training"})
    curve.iloc[:10].to_parquet(run / "metrics.parquet")
    panel = tab.locator(".st-key-runs-and-jobs")
    expect(panel.get_by_text("1 training is running")).to_be_visible(timeout=30_000)
    expect(panel.get_by_text("step 500 of 2,400")).to_be_visible()
    curve.iloc[:20].to_parquet(run / "metrics.parquet")
    (run / "samples").mkdir()
    Image.new("L", (112, 112), 90).save(run / "samples" / "1000.png")
    expect(panel.get_by_text("step 1,000 of 2,400")).to_be_visible(timeout=15_000)
    grid = tab.locator(".st-key-grids-training img")
    expect(grid).to_have_count(1, timeout=15_000)
    assert grid.evaluate("image => image.decode().then(() => image.naturalWidth)") == 112
    assert len(drawn(tab, ".st-key-plot-training-training")[0]["x"]["bdata"]) > 0
    tab.screenshot(path=SHOTS / "running.png")
    write_json(run / "run.json", {**info, "status": "done"})
    expect(panel.get_by_text("1 training is running")).to_have_count(0, timeout=15_000)
    assert tab.evaluate("window.same")
    shutil.rmtree(run)


def test_a_sampling_is_found_and_followed_without_a_reload(tab: Page, served: str, copied: Path) -> None:
    """A real one, which waits after each part until the page has shown it."""
    open_page(tab, served)
    tab.evaluate("window.same = true")
    folder = copied / "mnist_tiny" / "traces" / "growing"
    settings = SamplingSettings(policy="never", solver="ddim", steps=2, num_samples=6, batch_size=2)
    seen = threading.Semaphore(0)

    def wait(step: Step) -> None:
        if step.step == 1:
            seen.acquire(timeout=60)

    work = threading.Thread(
        target=lambda: sample_to_trace(copied / "mnist_tiny", folder, settings, device="cpu", on_step=wait)
    )
    work.start()
    try:
        panel = tab.locator(".st-key-runs-and-jobs")
        expect(panel.get_by_text("1 sampling is running")).to_be_visible(timeout=30_000)
        for done in (2, 4):
            expect(panel.get_by_text(f"is sampled: {done} of 6 images")).to_be_visible(timeout=15_000)
            expect(panel.locator(".st-key-growing-mnist_tiny-growing img")).to_have_count(done)
            seen.release()
        seen.release()
        work.join(60)
        expect(panel.get_by_text("1 sampling is running")).to_have_count(0, timeout=15_000)
        expect(tab.locator(".st-key-news button").filter(has_text="growing")).to_be_visible()
        assert tab.evaluate("window.same")
        assert "growing" in exported(tab, "traces")["trace"].tolist()
    finally:
        for _ in range(3):
            seen.release()
        work.join(60)
        shutil.rmtree(folder)
