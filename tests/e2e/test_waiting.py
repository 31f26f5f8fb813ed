"""Waiting is visible: spinners while the server computes, a sentence where a file does not arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from deediff.bench.browser import PATIENCE, SCRIPT, wait_until_drawn

pytestmark = pytest.mark.e2e
TRACE = "run=mnist_tiny&trace=ddim50-never-full"
TURNS = """() => ['#root', '[data-testid=stApp]'].some(at => {
  const ring = document.querySelector(at) && getComputedStyle(document.querySelector(at), '::after');
  return ring && ring.content !== 'none' && ring.opacity === '1' && ring.animationName === 'turning';
})"""

RESTS = f"() => !({TURNS})()"


class SlowServer:
    """After `hold`, the server's next run of the script is paused until `release`."""

    def __init__(self, page: Page):
        self._holds, self._begun = False, False
        self._held: list[Callable[[], None]] = []
        page.route_web_socket("**/_stcore/stream", self._connect)

    def _connect(self, browser: WebSocketRoute) -> None:
        server = browser.connect_to_server()
        server.on_message(lambda message: self._pass(message, lambda: browser.send(message)))

    def _pass(self, message: bytes | str, send: Callable[[], None]) -> None:
        if self._begun:
            self._held.append(send)
            return
        send()
        assert isinstance(message, bytes)
        self._begun = self._holds and ForwardMsg.FromString(message).session_status_changed.script_is_running

    def hold(self) -> None:
        self._holds = True

    def release(self) -> None:
        self._holds = self._begun = False
        for send in self._held:
            send()
        self._held = []


class Held:
    """A file that does not arrive until `release`."""

    def __init__(self, page: Page, pattern: str):
        self._routes: list[Route] | None = []  # None: nothing is held any more
        page.route(pattern, self._take)

    def _take(self, route: Route) -> None:
        if self._routes is None:
            route.continue_()
        else:
            self._routes.append(route)

    def release(self) -> None:
        held, self._routes = self._routes or [], None
        for route in held:
            route.continue_()


@pytest.fixture
def page(tab: Page, served: str) -> Iterator[Page]:
    """A separate tab, so that its routes do not affect other tests."""
    browser = tab.context.browser
    assert isinstance(browser, Browser)
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.add_init_script(SCRIPT)
    yield page
    page.close()


def move_slider(page: Page) -> None:
    slider = page.locator(".st-key-tau input")
    slider.focus()
    slider.press("ArrowRight")


def sort_by_change(page: Page) -> None:
    page.locator(".st-key-order").click()
    page.get_by_role("option", name="Change").click()


ACTIONS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "another page": ("", lambda page: page.get_by_role("link", name="Compare").click()),
    "the slider": ("", move_slider),
    "another order": ("images", sort_by_change),
    "another sample": ("sample", lambda page: page.keyboard.press("ArrowRight")),
    "live sampling": ("live", lambda page: page.locator(".st-key-sample button").click()),
    "an evaluation": ("runs", lambda page: page.locator(".st-key-evaluate-traces button >> visible=true").click()),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_ring_turns_for_as_long_as_the_answer_takes(name: str, page: Page, served: str) -> None:
    path, act = ACTIONS[name]
    server = SlowServer(page)
    page.goto(f"{served}/{path}?{TRACE}&picked+traces=mnist_tiny/ddim50-never")
    wait_until_drawn(page)
    page.wait_for_function(RESTS)
    server.hold()
    act(page)
    page.wait_for_function(TURNS)
    server.release()
    page.wait_for_function(RESTS)
    wait_until_drawn(page)


def test_the_first_page_shows_that_it_comes_until_it_is_there(page: Page, served: str) -> None:
    streamlit, plotly = Held(page, "**/static/js/index.*.js"), Held(page, "**/plotly-*.js")
    with page.expect_request("**/static/js/index.*.js"), page.expect_request("**/plotly-*.js"):
        page.goto(f"{served}/?{TRACE}", wait_until="commit")
    page.wait_for_function(TURNS)  # without a line of Streamlit's
    streamlit.release()
    figure = page.locator(".st-key-plot-worth .plot")
    expect(figure).to_have_css("animation-name", "waiting", timeout=PATIENCE)
    plotly.release()
    expect(figure).to_have_attribute("data-drawn", "yes", timeout=PATIENCE)
    expect(figure).to_have_css("animation-name", "none")
    page.wait_for_function(RESTS)
    wait_until_drawn(page)


BLOCKED: dict[str, Callable[[Route], None]] = {
    "no answer": lambda route: route.abort(),
    "a proxy's page": lambda route: route.fulfill(body="<html>Not allowed</html>", content_type="text/html"),
}


@pytest.mark.parametrize("how", BLOCKED)
def test_where_plotly_does_not_arrive_the_figures_say_so(how: str, page: Page, served: str) -> None:
    page.route("**/plotly-*.js", BLOCKED[how])
    page.goto(f"{served}/trends?{TRACE}")
    figure = page.locator(".st-key-plot-exit-heatmap .plot")
    expect(figure).to_contain_text("No figure can be drawn: plotly.js did not arrive from http", timeout=PATIENCE)
    expect(figure).to_have_css("animation-name", "none")
    move_slider(page)  # the rest of the page still answers
    page.wait_for_function("!location.search.includes('tau=0.105')")
