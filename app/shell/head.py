"""The head of every page: plotly.js, a spinner, the styles, and the rule for the browser's history.

With plotly.js in the head it is loaded before the first figure; a component would load it only after the page is drawn.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FOLDER = Path(__file__).parent
_style = st.components.v2.component(
    "library", html="<span></span>", css=(_FOLDER / "page.css").read_text(encoding="utf-8"), isolate_styles=False
)


def load_styles() -> None:
    """Add the styles to the page."""
    _style(key="styles")


def routes() -> list[BaseRoute]:
    """plotly.js, and beside it the scripts and the font that save a figure as PDF."""
    path = plotly_path()
    return [
        Route(path, serve_plotly),
        Mount(f"{path.rpartition('/')[0]}/pdf", StaticFiles(directory=_FOLDER / "pdf")),
    ]


def plotly_path() -> str:
    """The path of plotly.js; it contains the version, so that browsers may cache it."""
    base = st.get_option("server.baseUrlPath").strip("/")
    return f"{'/' + base if base else ''}/plotly-{version('plotly')}.js"


def serve_plotly(_: Request) -> Response:
    """plotly.js, uncompressed: compression would take longer than the transfer to a browser nearby."""
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Encoding": "identity"}
    return Response(_plotly(), media_type="text/javascript", headers=headers)


@cache
def _plotly() -> bytes:
    """The file of the Python package, without its wrapper for Node.js.

    Inside the wrapper a browser would parse the file twice, the second time while the page is blocked.
    """
    package = find_spec("plotly")
    assert package is not None
    assert package.submodule_search_locations is not None
    text = (Path(package.submodule_search_locations[0]) / "package_data" / "plotly.min.js").read_bytes()
    begin, end = text.find(b"var Plotly="), text.rfind(b"return Plotly;")
    return text if min(begin, end) < 0 else b'"use strict";' + text[begin:end]


def plotly_source() -> str:
    """The source of plotly.js."""
    return _plotly().decode("utf-8")


def head_lines() -> str:
    """The spinner's styles, plotly.js and history.js."""
    script = f'<script id="plotly" async src="{plotly_path()}" onerror="this.failed = true"></script>'
    return f"<style>{_asset('waiting.css')}</style><script>{_asset('history.js')}</script>{script}"


@cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


class InHead:
    """Middleware that adds `head_lines` to every page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything through, with the lines added to HTML pages."""
        lines = head_lines().encode()
        start: Message | None = None  # of a page, until its head is known

        async def insert(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_page(message):
                start = message
                return
            if start is not None and message["type"] == "http.response.body":
                if b"</head>" in message.get("body", b""):
                    message["body"] = message["body"].replace(b"</head>", lines + b"</head>", 1)
                    headers = MutableHeaders(scope=start)
                    if "content-length" in headers:
                        headers["content-length"] = str(int(headers["content-length"]) + len(lines))
                await send(start)
                start = None
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if b"text/html" in dict(scope["headers"]).get(b"accept", b""):  # a page, which must not be compressed
            plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            scope = {**scope, "headers": plain}
        await self._app(scope, receive, insert)


def _is_page(start: Message) -> bool:
    return start["status"] == 200 and Headers(raw=start["headers"]).get("content-type", "").startswith("text/html")
