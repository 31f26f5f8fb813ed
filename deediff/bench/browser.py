"""The browser of the explorer's benchmark: when an element was painted, in the browser's own clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deediff.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE = 60_000  # timeout of one measurement, in milliseconds
HEATMAP = ".st-key-plot-exit-heatmap .js-plotly-plot"  # of Exit trends
FIRST = ".st-key-panels-overview"  # the first page, whose figures depend on what the run has
SLIDER = ".st-key-tau"  # the what-if threshold
LIVE_SLIDER = ".st-key-live-tau"  # the threshold of *Sample live*
TILES = ".st-key-images-A figure"  # the samples of trace A on *Images*
LENS = ".st-key-plot-diffusion-lens .js-plotly-plot"  # of *Sample*
ERRORS = "[data-testid=stException], [data-testid=stAlertContentError]"

# Injected into the page before its own scripts. Conditions are checked once per frame, and times taken a frame later.
SCRIPT = (
    """
window.bench = {
  begin: null, result: null,
  app: () => document.querySelector('[data-testid=stApp]'),
  images(root) {  // those of galleries and films are within shadow roots
    const parts = [...root?.querySelectorAll('*') ?? []];
    return parts.flatMap(part => part.shadowRoot ? this.images(part.shadowRoot) : part.matches('img') ? [part] : []);
  },
  painted(images) {
    const shown = images.filter(image => image.src);
    return shown.length > 0 && shown.every(image => image.complete && image.naturalWidth > 0);
  },
  content() {  // the heatmap's values, which identify what is drawn
    const gd = document.querySelector('HEATMAP');
    const z = gd && gd.dataset.drawn && gd.data && gd.data[0] && gd.data[0].z;
    return z ? z.bdata ?? JSON.stringify(z) : null;
  },
  missing() {  // why the page is not drawn: the script runs, a stale element is left, or a visible figure or an image
    const app = this.app(), main = document.querySelector('[data-testid=stMain]');
    if (!app || !main || app.dataset.testScriptState !== 'notRunning') return 'the script is running';
    if (main.querySelector('[data-stale=true], [data-testid=stSkeleton]')) return 'a stale element is left';
    for (const plot of main.querySelectorAll('.plot')) {
      const box = plot.getBoundingClientRect();
      if (box.top < innerHeight && box.bottom > 0 && !plot.dataset.drawn) return 'a figure is not drawn';
    }
    return this.images(main).every(image => image.complete) ? '' : 'an image is not loaded';
  },
  drawn() { return this.missing() === ''; },
  time(event, done) {  // milliseconds from the next such event until `done` holds and is painted
    this.begin = this.result = null;
    if (event) addEventListener(event, () => { this.begin = performance.now(); }, {capture: true, once: true});
    else this.begin = 0;  // the start of the navigation
    const ready = () => { try { return done(); } catch { return false; } };  // the page is changing
    const look = () => {
      if (this.begin !== null && ready()) requestAnimationFrame(() => setTimeout(() => {
        this.result = performance.now() - this.begin;
      }));
      else requestAnimationFrame(look);
    };
    look();
  },
  redraw() { const before = this.content(); this.time('pointerup', () => this.content() !== before); },
  run: () => Math.max(0, ...[...document.querySelectorAll('.server-ms')].map(mark => Number(mark.dataset.run))),
  open(path) {  // each run of the script leaves a numbered mark; a frame may miss that it was running
    const before = this.run();
    this.time('click', () => location.pathname === path && this.run() > before && this.drawn());
  },
  policy() {  // title of the images on screen
    const titles = [...document.querySelectorAll('.st-key-live :is(h2, h3)')].map(title => title.textContent);
    return titles.find(title => title.startsWith('Early exit')) ?? '';
  },
  finished() {  // the images are those of the last step
    const labels = [...document.querySelectorAll('.st-key-live_figures [data-testid=stMetricLabel]')];
    return labels.some(label => label.textContent.trim() === 'Layer ratio')
      && this.painted(this.images(document.querySelector('.st-key-live')));
  },
  resample() {
    const before = this.policy();
    this.time('pointerup', () => this.policy() !== before && this.finished());
  },
  first() { this.time(null, () => document.querySelector('FIRST') && this.drawn()); },
  sample() { this.time('click', () => this.painted(this.images(document.querySelector('.st-key-live')))); },
  film() { this.time('click', () => this.painted(this.images(document.querySelector('.st-key-film-player')))); },
  cells() {  // the picture of the diffusion lens, which identifies it
    const gd = document.querySelector('LENS');
    return gd?.dataset.drawn && gd.querySelector('.imagelayer image')?.getAttribute('href') || null;
  },
  lens() {
    const before = this.cells();
    this.time('click', () => this.cells() !== null && this.cells() !== before);
  },
};
""".replace("HEATMAP", HEATMAP)
    .replace("FIRST", FIRST)
    .replace("LENS", LENS)
)


@contextmanager
def open_browser() -> Iterator[Page]:
    """A page of a headless Chromium: the system's, else Playwright's own. Raises UserError without either."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise UserError("the browser is driven by Playwright, which is not installed: pip install playwright") from None
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    options = ["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a GPU
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=options)
        except Error as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"Chromium does not start ({reason}): playwright install chromium") from None
        try:
            yield new_page(browser)
        finally:
            browser.close()


def new_page(browser: Browser) -> Page:
    """A page in a browser context of its own, as that of another person."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.add_init_script(SCRIPT)
    return page


def answer(page: Page) -> float:
    """Milliseconds of the running measurement, once it is complete. Raises UserError after the timeout."""
    from playwright.sync_api import TimeoutError

    try:
        return float(page.wait_for_function("bench.result", polling=20).json_value())
    except TimeoutError:
        reason = page.evaluate("bench.missing()") or "the page is drawn, but not with what was asked for"
        raise UserError(
            f"the explorer was not ready within {PATIENCE // 1000} seconds at {page.url} ({reason}): "
            "look at it in a browser"
        ) from None


def wait_until_drawn(page: Page) -> None:
    """Wait until the page has been unchanged for a while. Raises UserError after the timeout."""
    from playwright.sync_api import TimeoutError

    try:
        for _ in range(3):
            page.wait_for_function("bench.drawn()")
            page.wait_for_timeout(150)
    except TimeoutError:
        raise UserError(f"the explorer did not finish drawing {page.url} in time: look at it in a browser") from None


def first_page(page: Page, address: str) -> float:
    """Milliseconds from the request of the page until its figures are painted."""
    page.goto(address, wait_until="commit")
    page.evaluate("bench.first()")
    return answer(page)


def release_slider(page: Page, share: float) -> float:
    """Drag the what-if threshold to a share of its range: milliseconds from release until the heatmap shows it."""
    return _release(page, SLIDER, share, "redraw")


def release_live_slider(page: Page, share: float) -> float:
    """The same for the threshold of *Sample live*: milliseconds until the images sampled with it are painted."""
    return _release(page, LIVE_SLIDER, share, "resample")


def release_sliders(pages: Sequence[Page], shares: Sequence[float]) -> list[float]:
    """The same as `release_slider` on several pages, all released before an answer is awaited.

    Raises UserError when a page shows an error.
    """
    for page, share in zip(pages, shares, strict=True):
        _grasp(page, SLIDER, share)
    for page in pages:
        page.evaluate("bench.redraw()")
    for page in pages:
        page.mouse.up()
    times = [answer(page) for page in pages]
    for number, page in enumerate(pages):
        if errors := page.locator(ERRORS).all_inner_texts():
            raise UserError(f"browser context {number + 1} of {len(pages)} shows an error: {errors[0]}")
    return times


def open_tiles(page: Page) -> None:
    """Open *Images* by its link, with the samples of trace A."""
    wait_until_drawn(page)
    open_link(page, "/images")
    page.locator(TILES).first.wait_for()
    wait_until_drawn(page)


def film_of_tile(page: Page, tile: int) -> float:
    """Milliseconds from the click on a sample on *Images* until its films on *Sample* are painted."""
    page.evaluate("bench.film()")
    page.locator(TILES).nth(tile).click()
    return answer(page)


def open_lens(page: Page, address: str) -> None:
    """Open the diffusion lens of a sample."""
    page.goto(address, wait_until="commit")
    page.wait_for_function("bench.cells()")


def lens_of_next(page: Page) -> float:
    """Milliseconds from the click on *Next* until the diffusion lens of that sample is painted."""
    page.evaluate("bench.lens()")
    page.get_by_role("button", name="Next").click()
    return answer(page)


def first_image(page: Page, address: str) -> float:
    """Milliseconds from the click on *Sample* on a new *Sample live* until its first images are painted.

    At its defaults, 4 images × DDIM-20.
    """
    page.goto(address, wait_until="commit")
    page.locator(".st-key-sample button:enabled").wait_for()
    wait_until_drawn(page)
    page.evaluate("bench.sample()")
    page.locator(".st-key-sample button").click()
    return answer(page)


def _release(page: Page, slider: str, share: float, until: str) -> float:
    _grasp(page, slider, share)
    page.evaluate(f"bench.{until}()")
    page.mouse.up()
    return answer(page)


def _grasp(page: Page, slider: str, share: float) -> None:
    """Drag a slider to a share of its range, without releasing it."""
    page.locator(slider).scroll_into_view_if_needed()
    thumb = page.locator(f"{slider} [data-testid=stSliderThumbValue]").locator("xpath=..").bounding_box()
    track = page.locator(f"{slider} [role=group] > div").first.bounding_box()
    assert thumb is not None
    assert track is not None
    page.mouse.move(thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + share * track["width"], track["y"] + track["height"] / 2, steps=4)
    page.wait_for_timeout(100)


def server_milliseconds(page: Page) -> float:
    """CPU time of the latest run of the explorer's script, which it reports when DEEDIFF_BENCH is set."""
    return float(page.locator(".server-ms").last.get_attribute("data-ms") or "nan")


def links(page: Page) -> list[str]:
    """Paths of the explorer's pages."""
    found: list[str] = page.locator("[data-testid=stSidebarNavLink]").evaluate_all(
        "all => all.map(link => new URL(link.href).pathname)"
    )
    return found


def open_link(page: Page, path: str) -> float:
    """Milliseconds from the click on a page's link until everything on the page is painted."""
    index = links(page).index(path)
    page.evaluate("path => bench.open(path)", path)
    page.locator("[data-testid=stSidebarNavLink]").nth(index).click()
    return answer(page)
