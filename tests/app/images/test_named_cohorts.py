"""Named cohorts on *Images* and in the sidebar: kept in the run, listed, chosen, renamed, deleted, put side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import deediff
from app.shell.cohort import LIST
from app.state import cohort as state
from deediff.traces import cohort_file
from deediff.traces.cohort_file import FILE, NamedCohort, keep_cohort, read_cohorts
from tests.app.helpers import EXITS, SAMPLES, in_the_link, metric, open_app, sentences, shown_tiles

HARD, EASY = NamedCohort("hard", "1,3-4", "late exits"), NamedCohort("easy", "0,5")


def layers(runs: Path) -> np.ndarray:
    """(samples, steps)."""
    return deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()


def keep(runs: Path, *cohorts: NamedCohort) -> None:
    for cohort in cohorts:
        keep_cohort(runs / "toy", cohort)


def listed(app: AppTest) -> list[str]:
    """The lines of the list."""
    return [text.value for text in app.markdown if " samples · mean exit layer " in text.value]


def shown(app: AppTest) -> list[int]:
    return [tile["number"] for tile in shown_tiles(app, "images A")]


def test_the_samples_on_screen_are_kept_under_a_name_with_a_note(runs: Path) -> None:
    app = open_app("images", run="toy", trace=EXITS, samples="1,3-4")
    name, note = (
        next(field for field in app.text_input if field.label == label)
        for label in ("Keep the chosen samples as", "Note")
    )
    assert name.value == "cohort 1"
    name.set_value("hard")
    note.set_value("late exits")
    app.button(key="keep cohort").click().run()
    (kept,) = read_cohorts(runs / "toy").values()
    assert (kept.name, kept.samples, kept.note, kept.trace) == ("hard", "1,3-4", "late exits", EXITS)
    assert in_the_link(app)["samples"] == "hard:1,3-4"
    mean = layers(runs)
    (line,) = listed(app)
    assert line.startswith(
        f"**hard** · 3 samples · mean exit layer {mean[[1, 3, 4]].mean():.2f} (of all: {mean.mean():.2f})"
    )
    assert " · late exits · on " in line
    assert not [button for button in app.button if button.key == "keep cohort"]


def test_the_images_of_a_page_are_a_cohort(runs: Path) -> None:
    app = open_app("images", run="toy", trace=EXITS, samples="1,3-4")
    app.text_input(key="samples").set_value("").run()
    assert shown(app) == list(range(SAMPLES))
    app.button(key="cohort of page").click().run()
    assert in_the_link(app)["samples"] == f"0-{SAMPLES - 1}"


def test_a_cohort_is_chosen_from_the_list_renamed_and_deleted(runs: Path) -> None:
    keep(runs, HARD, EASY)
    app = open_app("images", run="toy", trace=EXITS)
    assert app.selectbox(key=LIST).options == ["all samples", "hard", "easy"]
    app.selectbox(key=LIST).set_value("easy").run()
    assert shown(app) == [0, 5]
    app.button(key="show cohort hard").click().run()
    assert shown(app) == [1, 3, 4]
    assert app.selectbox(key=LIST).value == "hard"
    app.text_input(key="name of cohort hard").set_value("easy")
    app.button(key="save cohort hard").click().run()
    assert "a cohort “easy” exists already" in sentences(app)
    app.text_input(key="name of cohort hard").set_value("hardest")
    app.text_input(key="note of cohort hard").set_value("the latest")
    app.button(key="save cohort hard").click().run()
    assert list(read_cohorts(runs / "toy")) == ["hardest", "easy"]
    assert in_the_link(app)["samples"] == "hardest:1,3-4"
    assert "3 samples · the latest" in " ".join(caption.value for caption in app.caption)
    app.button(key="delete cohort hardest").click().run()
    assert list(read_cohorts(runs / "toy")) == ["easy"]
    assert shown(app) == list(range(SAMPLES))
    assert len(listed(app)) == 1


def test_two_cohorts_stand_beside_each_other_on_every_page(runs: Path) -> None:
    keep(runs, HARD, EASY)
    app = open_app("images", run="toy", trace=EXITS, samples="hard:1,3-4", others="easy")
    assert [tile["number"] for tile in shown_tiles(app, "images B")] == [0, 5]
    assert shown(app) == [1, 3, 4]
    app = open_app("trends", run="toy", trace=EXITS, samples="hard:1,3-4", others="easy")
    a, b = (layers(runs)[list(numbers)].mean() / 13 for numbers in ((1, 3, 4), (0, 5)))
    ratio = next(m for m in app.metric if m.label == "Layer ratio")
    assert ratio.value == f"{a:.3f}"
    assert ratio.delta.startswith(f"B: {b:.3f}")
    app = open_app("uncertainty", run="toy", trace=EXITS, samples="hard", others="easy")
    words = " ".join(caption.value for caption in app.caption)
    assert "· 3 samples, over samples that arrive" in words
    assert "· 2 samples, over samples that arrive" in words


def test_a_link_carries_the_numbers_of_a_cohort_and_of_a_long_one_the_name(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app("images", run="toy", trace=EXITS, samples="hard:1,3-4")  # opened where nobody kept it
    assert shown(app) == [1, 3, 4]
    keep(runs, HARD)
    monkeypatch.setattr(state, "LONGEST", 3)
    app = open_app("images", run="toy", trace=EXITS)
    app.selectbox(key=LIST).set_value("hard").run()
    assert in_the_link(app)["samples"] == "hard"
    assert shown(open_app("images", **in_the_link(app))) == [1, 3, 4]
    app = open_app("images", run="toy", trace=EXITS, samples="harder")
    assert "is no sample number and no range of them" in " ".join(caption.value for caption in app.caption)


def test_a_run_that_cannot_be_written_keeps_cohorts_in_the_session(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cohort_file, "write_json", refuse)
    app = open_app("images", run="toy", trace=EXITS, samples="1,3-4")
    app.button(key="keep cohort").click().run()
    assert "“cohort 1” is kept in this browser tab only" in sentences(app)
    assert "Read-only file system" in sentences(app)
    assert app.selectbox(key=LIST).value == "cohort 1"
    app.button(key="delete cohort cohort 1").click().run()
    assert not listed(app)


def test_a_damaged_list_is_a_sentence_and_the_page_stays(runs: Path) -> None:
    (runs / "toy" / FILE).write_text("{")
    app = open_app("images", run="toy", trace=EXITS, samples="1,3-4")
    assert shown(app) == [1, 3, 4]
    assert f"{FILE} cannot be read as JSON" in sentences(app)
    assert metric(app, "Layer ratio") == f"{layers(runs)[[1, 3, 4]].mean() / 13:.3f}"
