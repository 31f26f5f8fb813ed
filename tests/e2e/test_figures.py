"""Figures in a browser: they are saved for a paper, and their zoom is kept."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from pypdf import PdfReader

import deediff
from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.app.widgets.test_contrast import contrast
from tests.e2e.conftest import click_point, meta_of

pytestmark = pytest.mark.e2e
FULL = "ddim50-never-full"
HEATMAP = ".st-key-plot-exit-heatmap"


def open_page(tab: Page, served: str, **link: object) -> None:
    query = "&".join(
        f"{key}={value}" for key, value in {"run": "mnist_tiny", "trace": FULL, "tau": 0.1, **link}.items()
    )
    tab.goto(f"{served}/trends?{query}")
    tab.wait_for_selector(f"{HEATMAP} .plot[data-drawn]", timeout=PATIENCE)
    wait_until_drawn(tab)


def hexadecimal(color: str) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", color)[:3])


def paper(svg: str) -> str:
    """The colour of a saved figure's background."""
    found = re.search(r'<rect [^>]*style="fill: ([^;]+)', svg)
    assert found is not None
    return found[1]


def save(tab: Page, kind: str, width: str = "screen", as_shown: bool = False) -> bytes:
    tab.locator(HEATMAP).hover()
    tab.locator(f"{HEATMAP} [data-title='Save figure']").click()
    dialog = tab.get_by_role("dialog", name="Save figure")
    dialog.locator(f"[value={width}]").check()
    colours = dialog.get_by_label("Dark, as on screen")
    if colours.is_visible():  # on a dark page
        colours.set_checked(as_shown)
    with tab.expect_download(timeout=PATIENCE) as download:
        dialog.get_by_role("button", name=kind).click()
    assert download.value.suggested_filename == f"exit-heatmap.{kind.lower()}"
    return Path(download.value.path()).read_bytes()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_saved_figures_are_light_and_say_what_they_show(scheme: str, tab: Page, served: str, copied: Path) -> None:
    tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    try:
        open_page(tab, served, layer=4)
        assert (
            len(tab.locator(f"{HEATMAP} .js-plotly-plot").evaluate("gd => gd.layout.shapes")) > 4
        )  # with a cell's frame
        text = save(tab, "SVG").decode()
        assert hexadecimal(paper(text)) == "#ffffff"
        samples = meta_of(copied, FULL)["num_samples"]
        caption = " ".join(re.findall(r"<tspan[^>]*>([^<]*)</tspan>", text.partition('class="gtitle"')[2]))
        for part in ("run mnist_tiny", f"A = {FULL}, N = {samples:,}", "τ = 0.1", "P(exit at layer | timestep)"):
            assert part in caption
        assert text.count('class="shape-group"') == 2  # the line at the middle block and its shade
        assert (hexadecimal(paper(save(tab, "SVG", as_shown=True).decode())) == "#ffffff") == (scheme == "light")
        assert save(tab, "PNG").startswith(b"\x89PNG")
        picture = Image.open(io.BytesIO(save(tab, "PNG", "one")))
        assert picture.width == pytest.approx(3.25 * 300, abs=1)  # dots per inch
        assert hexadecimal("rgb({}, {}, {})".format(*picture.convert("RGB").getpixel((1, 1)))) == "#ffffff"  # type: ignore[misc]
    finally:
        tab.emulate_media(color_scheme="light")


@pytest.mark.parametrize(("width", "inches"), [("one", 3.25), ("two", 6.75)])
def test_a_pdf_has_a_column_s_width_and_its_text_in_an_embedded_font(
    width: str, inches: float, tab: Page, served: str, copied: Path
) -> None:
    open_page(tab, served, layer=4)
    reader = PdfReader(io.BytesIO(save(tab, "PDF", width)))
    (page,) = reader.pages
    assert float(page.mediabox.width) == pytest.approx(72 * inches)
    sizes: list[float] = []

    def visit(text: str, _: object, matrix: list[float], __: object, size: float) -> None:
        if text.strip():
            sizes.append(0.75 * size * abs(matrix[3]))

    text = " ".join(page.extract_text(visitor_text=visit).split())
    for word in ("timestep t", "exit layer", "P(exit)", "middle block", "mean exit layer", "1.0", "999", "τ = 0.1"):
        assert word in text
    assert f"run mnist_tiny · A = {FULL}, N = {meta_of(copied, FULL)['num_samples']:,}" in text
    assert sizes
    assert 8 <= min(sizes) <= max(sizes) <= 11  # points
    (font,) = page["/Resources"]["/Font"].values()  # type: ignore[index]
    descriptor = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"]
    assert descriptor["/FontFile2"].get_data()[:4] == b"\0\1\0\0"  # TrueType
    assert len(page.images) == 1  # the cells
    assert reader.metadata is not None
    assert "ddim50-never-full" in (reader.metadata.title or "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_buttons_of_a_figure_can_be_read_and_none_uploads_it(scheme: str, tab: Page, served: str) -> None:
    tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    try:
        open_page(tab, served)
        tab.locator(HEATMAP).hover()
        looks = tab.locator(f"{HEATMAP} .modebar-btn svg").evaluate_all(
            "all => all.map(svg => getComputedStyle(svg.querySelector('text, path')).fill)"
        )
        background = "e => getComputedStyle(e).backgroundColor"
        behind = hexadecimal(tab.locator("[data-testid=stApp]").evaluate(background))
        assert len(looks) == 2
        assert all(contrast(hexadecimal(look), behind) >= 4.5 for look in looks)
        titles = tab.locator(f"{HEATMAP} .modebar-btn").evaluate_all("all => all.map(e => e.dataset.title)")
        assert [title for title in titles if not title.startswith(("Save figure", "Reset"))] == []
    finally:
        tab.emulate_media(color_scheme="light")


def test_a_zoom_survives_sliders_and_clicks(tab: Page, served: str, copied: Path) -> None:
    open_page(tab, served)
    times = deediff.read_trace(copied / "mnist_tiny" / "traces" / FULL).timesteps
    ranges = "gd => [...gd._fullLayout.xaxis.range, ...gd._fullLayout.yaxis.range]"
    plot = tab.locator(f"{HEATMAP} .js-plotly-plot")
    whole = plot.evaluate(ranges)
    box = tab.locator(f"{HEATMAP} .nsewdrag").bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.8 * box["height"], steps=4)
    tab.mouse.up()
    tab.wait_for_timeout(400)
    zoomed = plot.evaluate(ranges)
    assert abs(zoomed[1] - zoomed[0]) < 0.5 * abs(whole[1] - whole[0])
    slider = tab.locator(".st-key-tau input")
    slider.focus()
    slider.press("ArrowRight")
    tab.wait_for_url("**tau=0.105*", timeout=PATIENCE)
    wait_until_drawn(tab)
    assert plot.evaluate(ranges) == pytest.approx(zoomed)
    click_point(tab, HEATMAP, times[25], 6)
    tab.wait_for_url(f"**t={times[25]}&*layer=6*", timeout=PATIENCE)
    wait_until_drawn(tab)
    assert plot.evaluate(ranges) == pytest.approx(zoomed)
    tab.locator(HEATMAP).hover()
    tab.locator(f"{HEATMAP} [data-title^='Reset']").click()
    tab.wait_for_timeout(400)
    assert plot.evaluate(ranges) == pytest.approx(whole)
    expect(tab.locator(".st-key-chosen-layer input")).to_have_value("6")
