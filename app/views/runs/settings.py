"""The settings in which the ticked runs or traces differ."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from app.state.selection import Selection
from app.views.runs import inventory
from app.widgets.panels import Panel, heading

HELP = "One row per setting in which the ticked ones differ; with one ticked, each of its settings."


def settings_panel(kind: str, settings: dict[str, dict[str, Any]], name: str) -> Panel:
    """`kind` is runs or traces; `settings` of each ticked one, by its name."""
    return Panel(name, partial(_draw_settings, kind, settings, name))


def _draw_settings(kind: str, settings: dict[str, dict[str, Any]], name: str, selected: Selection) -> None:
    if not settings:
        return
    alone = len(settings) == 1
    table = inventory.settings_table(settings, all_of_them=alone)
    if alone:
        title, subtitle = f"{len(table)} settings of {next(iter(settings))}", "tick several to see only differences"
    elif len(table):
        title, subtitle = f"{len(settings)} {kind} differ in {len(table)} settings", "all other settings are equal"
    else:
        title, subtitle = f"Equal {kind}: no setting differs", "all other settings are equal"
    heading(title, subtitle, HELP, lambda: table, name)
    if len(table):
        st.dataframe(table, hide_index=True, height=min(300, 37 + 35 * len(table)), key=f"table {name}")
