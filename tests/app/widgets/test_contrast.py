"""Colours contrast with the background of both themes as WCAG 2.2 demands."""

from __future__ import annotations

import tomllib

import pytest

from app.views.compare.figures import cost_quality
from app.views.method import figures as method
from app.widgets import figures
from tests.app.helpers import APP

THEME = tomllib.loads((APP / ".streamlit" / "config.toml").read_text())["theme"]
BACKGROUNDS = {name: THEME[name]["backgroundColor"] for name in ("light", "dark")}
SINGLE = (figures.A, figures.B, figures.FULL, figures.CHOSEN, *figures.OTHERS, *figures.MORE)


def luminance(color: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2, section 3)."""
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", BACKGROUNDS)
def test_lines_and_marks_contrast_by_three(theme: str) -> None:
    palette = {
        *SINGLE,
        *cost_quality.COLORS,
        method.BLOCK,
        *(c for n in range(1, 25) for c in figures.ordered_colors(n)),
    }
    assert {c: contrast(c, BACKGROUNDS[theme]) for c in palette if contrast(c, BACKGROUNDS[theme]) < 3} == {}


def test_colours_are_distinct() -> None:
    assert len({*SINGLE}) == len(SINGLE)


@pytest.mark.parametrize("theme", BACKGROUNDS)
def test_text_contrasts_by_four_and_a_half(theme: str) -> None:
    for behind in ("backgroundColor", "secondaryBackgroundColor"):
        assert contrast(THEME[theme]["textColor"], THEME[theme][behind]) >= 4.5
        assert contrast(THEME[theme]["primaryColor"], THEME[theme][behind]) >= 4.5


@pytest.mark.parametrize("cell", ["#ffffff", "#fee838", "#fde725"])  # empty; the bright ends of the scales
def test_white_text_on_its_shade_contrasts_over_every_cell(cell: str) -> None:
    red, green, blue, share = (float(part) for part in figures.SHADE[5:-1].split(","))
    under = [int(cell[k : k + 2], 16) for k in (1, 3, 5)]
    mixed = [round(share * top + (1 - share) * bottom) for top, bottom in zip((red, green, blue), under, strict=True)]
    assert contrast("#ffffff", "#{:02x}{:02x}{:02x}".format(*mixed)) >= 4.5
    assert contrast("#ffffff", method.BLOCK) >= 4.5
