"""What the tool is, how to fill it with one's own model, and the glossary."""

from __future__ import annotations

import streamlit as st

from app.state import cache
from app.state.commands import typed
from app.state.selection import Selection
from app.widgets.glossary import WORDS
from app.widgets.panels import Panel, section

WHAT = (
    "A diffusion model makes an image from noise by running its whole network at every denoising step; with *early "
    "exit* a sample stops after some of the blocks where that is judged enough, and a *plan* fixes in advance at which "
    "timesteps the network runs, and how deep. This explorer shows what both save and what they cost, measured on "
    "images that the models of this folder have sampled. Choose a run at the left: every figure follows, the address "
    "is a link to what is on screen, and (?) explains a figure and the words of its title, which are all in the "
    "[glossary](#glossary)."
)
STEPS = {  # what a command does: the command, for a run folder
    "A run, trained here; `deediff import` makes one of a U-ViT, DiT, AdaDiff or DuoDiff checkpoint": (
        "python -m trainer.run mnist_tiny --out {run}"
    ),
    "*Where?* Samples with exits, and every decision": (
        "deediff sample {run} --policy threshold:0.1 --steps 50 --num-samples 64 --out {run}/traces/threshold-0.1"
    ),
    "*Why?* The error of every exit on held-out images": "deediff calibrate {run}",
    "*Is it worth it?* Plans, searched (20 minutes) and validated": "deediff search {run}",
}


def draw_what(selection: Selection) -> None:
    """Three sentences."""
    section("What am I looking at?")
    st.markdown(WHAT)


def draw_start(selection: Selection) -> None:
    """The commands that fill this page."""
    section("Start here with your own model")
    for what, command in STEPS.items():
        st.caption(what)
        st.code(command.format(run=typed(cache.runs_root() / "mine")), language="bash", wrap_lines=True)


def draw_glossary(selection: Selection) -> None:
    """Every word of the explorer."""
    section("Glossary", anchor="glossary")
    half = -(-len(WORDS) // 2)
    for column, words in zip(st.columns(2, gap="medium"), (WORDS[:half], WORDS[half:]), strict=True):
        column.markdown("\n".join(f"- **{word.name}**: {word.meaning}" for word in words))


WHAT_PANEL = Panel("what", draw_what)
START = Panel("start", draw_start)
GLOSSARY = Panel("glossary", draw_glossary)
