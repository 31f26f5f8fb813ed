"""The measures of the explorer's benchmark on a page in the browser, as rows beside their limits."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from deediff.bench.browser import (
    film_of_tile,
    first_image,
    lens_of_next,
    links,
    new_page,
    open_lens,
    open_link,
    open_tiles,
    release_live_slider,
    release_slider,
    release_sliders,
    server_milliseconds,
    wait_until_drawn,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

LIMITS = {  # milliseconds; memory: MB; contexts: times the median of one
    "redraw": 300.0,
    "server": 30.0,
    "switch": 500.0,
    "first page": 3000.0,
    "live": 2000.0,
    "first image": 1000.0,
    "film": 1000.0,
    "lens": 3000.0,
    "contexts": 5.0,
    "memory": 600.0,
}


def row(measure: str, of: str, values: list[float], unit: str, limit: float | None) -> dict[str, Any]:
    """One measure: median and largest of its values, beside its limit."""
    median = statistics.median(values)
    within = None if limit is None else ("yes" if median <= limit else "NO")
    return {
        "measure": measure,
        "of": of,
        "median": median,
        "worst": max(values),
        "unit": unit,
        "limit": limit,
        "within": within,
        "repeats": len(values),
    }


def measure_live(page: Page, address: str, of: str, repeats: int) -> list[dict[str, Any]]:
    """First images after a click on *Sample*; then releases of the slider, each at another threshold."""
    firsts = [first_image(page, address) for _ in range(repeats)]
    page.wait_for_function("bench.finished()")  # from now on the images follow the slider
    times = []
    for repeat in range(repeats + 1):
        wait_until_drawn(page)
        milliseconds = release_live_slider(page, _share(repeat, 0.15))
        if repeat > 0:  # else warm-up
            times.append(milliseconds)
    return [
        row("live mode: Sample clicked to first image", of, firsts, "ms", LIMITS["first image"]),
        row("live mode: slider released to images", of, times, "ms", LIMITS["live"]),
    ]


def measure_slider(page: Page, of: str, repeats: int) -> list[dict[str, Any]]:
    """Redraws of the heatmap, and the server's CPU time for each."""
    redraws, spent = [], []
    for repeat in range(repeats + 1):
        wait_until_drawn(page)
        milliseconds = release_slider(page, _share(repeat, 0.25))
        if repeat == 0:  # warm-up
            continue
        redraws.append(milliseconds)
        wait_until_drawn(page)
        spent.append(server_milliseconds(page))
    rows = [row("slider released to heatmap redrawn", of, redraws, "ms", LIMITS["redraw"])]
    return [*rows, row("of which the server's own computation", of, spent, "ms", LIMITS["server"])]


def measure_switches(page: Page, of: str, repeats: int) -> list[dict[str, Any]]:
    """Switches to every page in turn, `repeats` times."""
    paths = links(page)
    times: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(repeats):
        for path in [*paths[1:], paths[0]]:
            wait_until_drawn(page)
            times[path].append(open_link(page, path))
    return [row(f"switch to {path}", of, values, "ms", LIMITS["switch"]) for path, values in times.items()]


def measure_film(page: Page, of: str, repeats: int) -> list[dict[str, Any]]:
    """Films of samples that are clicked on *Images*, each another one."""
    times = []
    for repeat in range(repeats + 1):
        open_tiles(page)
        times.append(film_of_tile(page, repeat))
    return [row("sample clicked to film", of, times[1:], "ms", LIMITS["film"])]


def measure_lens(page: Page, address: str, of: str, repeats: int) -> list[dict[str, Any]]:
    """Diffusion lenses of the samples after the first."""
    open_lens(page, address)
    times = []
    for _ in range(repeats):
        wait_until_drawn(page)
        times.append(lens_of_next(page))
    return [row("sample chosen to diffusion lens", of, times, "ms", LIMITS["lens"])]


def measure_contexts(page: Page, address: str, of: str, repeats: int, number: int) -> list[dict[str, Any]]:
    """Redraws of the heatmap in one of `number` browser contexts, then in all of them at once.

    Raises UserError when one of them shows an error or does not answer.
    """
    assert page.context.browser is not None
    pages = [new_page(page.context.browser) for _ in range(number)]
    try:
        for each in pages:
            each.goto(address, wait_until="commit")
            wait_until_drawn(each)
        alone: list[float] = []
        together: list[float] = []
        for times, moved in ((alone, pages[:1]), (together, pages)):
            for repeat in range(repeats + 1):
                shares = [_share(repeat, 0.25) + 0.02 * k for k in range(len(moved))]
                for each in moved:
                    wait_until_drawn(each)
                values = release_sliders(moved, shares)
                times += values if repeat > 0 else []
    finally:
        for each in pages:
            each.context.close()
    ratio = statistics.median(together) / statistics.median(alone)
    return [
        row("slider in one browser context", of, alone, "ms", None),
        row(f"slider in {number} browser contexts at once", of, together, "ms", None),
        row("ratio of these medians", of, [ratio], "×", LIMITS["contexts"]),
    ]


def _share(repeat: int, start: float) -> float:
    """Where a slider is moved: another place than at the repetition before."""
    return start + 0.1 * (repeat % 2) + 0.02 * repeat
