"""plotly.js in the head of every page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from app.shell import head


@pytest.mark.parametrize("size", [10, 100_000])
def test_every_page_asks_for_plotly_in_its_head_whatever_the_browser_takes(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = b"<html><head></head><body>" + b"x" * size + b"</body></html>"

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        await GZipMiddleware(Response(page, media_type="text/html"), minimum_size=500)(scope, receive, send)

    headers = [(b"accept", b"text/html,*/*"), (b"accept-encoding", b"gzip, br")]
    scope = {"type": "http", "method": "GET", "path": "/compare", "headers": headers}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(head.InHead(respond)(scope, None, send))
    body = b"".join(message.get("body", b"") for message in sent)
    assert body == page.replace(b"</head>", f"{head.head_lines()}</head>".encode())
    assert f'src="{head.plotly_path()}"' in head.head_lines()
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(body)).encode()
