"""What a link holds and cannot be used is said, on every page and for every key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.helpers import APP, EXITS, FULL, in_the_link, open_app, sentences

OPTIONAL = (  # keys that a link without them does not get
    *("also", "budget", "cell", "forced", "images_as", "lens_columns", "lens_rows", "live layer", "live plan"),
    *("live sampled", "live schedule", "live tau", "others", "picked traces", "samples", "steps", "wipe_b", "unheard"),
)
PAGES = sorted(path.parent.name for path in (APP / "views").glob("*/page.py"))


@pytest.mark.parametrize("page", PAGES)
def test_each_value_that_a_link_cannot_set_is_named(page: str, runs: Path) -> None:
    keys = set(in_the_link(open_app(page, run="toy", trace=EXITS, b=FULL, sample="1", layer="2")))
    assert {"run", "trace", "b", "t", "tau", "sample", "layer"} <= keys
    hostile = {key: f"<{key}>\x00'\"%00..//" for key in sorted(keys | {*OPTIONAL})}
    app = open_app(page, **hostile)
    said = sentences(app) + " ".join(caption.value for caption in app.caption)
    assert [key for key in hostile if f"<{key}>" not in said] == []
    kept = {key for key, value in in_the_link(app).items() if value == hostile.get(key)}
    assert kept <= {"samples"}  # a text that the sidebar shows, with what is wrong below it
