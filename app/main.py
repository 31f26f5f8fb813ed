"""The server of the explorer: `streamlit run app/main.py`. What it shows begins in explorer.py.

What the first page would wait for is got ready here: its imports before the server answers, and plotly.js in
the browser while Streamlit's own scripts arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Route
from streamlit.cli_util import open_browser
from streamlit.web.server.server_util import get_url

import library

FIRST_PAGE = ("frame", "budget", "exit_panels", "trend_lines", "variance_panel")  # what it imports
SOON = 1.0  # seconds until the server certainly answers


@asynccontextmanager
async def ready(_: st.App) -> AsyncIterator[None]:
    """Import what the first page is drawn with, and open it where there is a screen, as Streamlit's own servers do."""
    for module in FIRST_PAGE:
        import_module(module)
    if not st.get_option("server.headless"):
        asyncio.get_running_loop().call_later(SOON, open_browser, get_url("localhost"))
    yield


app = st.App(
    "explorer.py",
    lifespan=ready,
    routes=[Route(library.address(), library.serve)],
    middleware=[Middleware(library.InHead)],
)
