"""A page as one HTML file: its figures with plotly.js inline, its images, and the commands that reproduce them."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import streamlit as st

import deediff
from app.shell.head import plotly_source
from app.state import commands, shown
from app.state.selection import Selection
from app.state.shown import Shown
from deediff.traces.reader import Trace

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #1b1f27 }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #d5d8de }
h3 { font-size: 1rem; margin: 1.5rem 0 0 } .caption { color: #555b66; font-size: .85rem; margin: 0 0 .5rem }
.images { display: flex; flex-wrap: wrap; gap: 8px } figure { margin: 0; width: 84px; font-size: .75rem }
.plot { overflow-x: auto }
img { width: 100%; image-rendering: pixelated } pre { background: #f3f5f8; padding: .7rem; white-space: pre-wrap }
"""
LAYOUT = {"paper_bgcolor": "#fff", "plot_bgcolor": "#fff", "font": {"color": "#1b1f27", "size": 12}}
DRAW = """
for (const place of document.querySelectorAll(".plot")) {
  const figure = JSON.parse(place.querySelector("script").textContent);
  for (const [key, axis] of Object.entries(figure.layout)) {
    if (/^[xy]axis/.test(key)) Object.assign(axis, { gridcolor: "#d5d8de", linecolor: "#d5d8de" });
  }
  Plotly.newPlot(place, figure.data, figure.layout, { displaylogo: false, responsive: true });
}
"""


@dataclass(frozen=True)
class Section:
    """One page of the explorer."""

    title: str
    shown: Sequence[Shown]
    link: str  # path and query of the page


def report_button(page: str, path: str, selected: Selection) -> None:
    """Download what the page shows; the file is written when the button is pressed."""

    def write() -> bytes:
        link = f"{path}?{urlencode(st.query_params.to_dict())}"
        return report(selected, [Section(page, shown.everything(), link)]).encode()

    st.download_button(
        "Download report",
        write,
        f"{selected.run.name}-{'-'.join(page.lower().split())}.html",
        "text/html",
        key="report",
        on_click="ignore",
        type="tertiary",
        icon=":material/description:",
        help="This page as one HTML file without network access: figures, images, settings and commands. "
        f"All pages: deediff report {commands.typed(selected.run.path)} --out report.html",
    )


def report(selected: Selection, sections: Sequence[Section]) -> str:
    """The HTML file of some pages."""
    traces = [trace for trace in (selected.trace, selected.other) if trace is not None]
    lines = "\n".join(filter(None, map(command_of, traces)))
    body = [
        f"<h1>{html.escape(selected.run.name)}</h1>",
        f'<p class="caption">{html.escape(selected.describe())} · deediff {deediff.__version__}</p>',
        *map(_section, sections),
    ]
    if lines:
        body.append(f"<h2>Reproduce</h2><pre>{html.escape(lines)}</pre>")
    script = plotly_source().replace("</script", "<\\/script")
    head = f'<meta charset="utf-8"><title>{html.escape(selected.run.name)}</title><style>{STYLE}</style>'
    scripts = f"<script>{script}</script><script>{DRAW}</script>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}{scripts}</body></html>'


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>", f'<p class="caption">{html.escape(section.link)}</p>']
    return "".join([*parts, *map(_entry, section.shown)])


def _entry(entry: Shown) -> str:
    text = f'<h3>{html.escape(entry.title)}</h3><p class="caption">{html.escape(entry.caption)}</p>'
    if entry.figure is not None:
        figure = {**entry.figure, "layout": entry.figure["layout"] | LAYOUT}
        data = json.dumps(figure).replace("<", "\\u003c")  # no tag ends the script
        return f'{text}<div class="plot"><script type="application/json">{data}</script></div>'
    images = [
        f'<figure><img src="{source}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'
        for source, caption in entry.images
    ]
    return f'{text}<div class="images">{"".join(images)}</div>'


def command_of(trace: Trace) -> str | None:
    """The command line that samples a trace again; None where the trace does not hold its settings."""
    settings = trace.meta.settings
    if settings is None:
        return None
    return commands.sample_command(Path(str(trace.path.parents[1])), settings, Path(str(trace.path)))
