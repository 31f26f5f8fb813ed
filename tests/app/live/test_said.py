"""*Sample live* says what it could not do, and shows costs per image."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from deediff.cli.parsing import parse_arguments
from deediff.cli.sampling import Sample
from tests.app.helpers import (
    FULL,
    in_the_link,
    open_app,
    press,
    sentences,
    shown_tiles,
    titles,
)


def test_a_link_names_no_file_on_the_server(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "secret.json"
    file.write_text('{"exit_layer": [3]}')
    app = open_app("live", **{"live policy": "schedule", "live schedule": str(file)})
    assert "live schedule" in sentences(app)
    assert app.text_input(key="live schedule").value == "ase"
    app.text_input(key="live schedule").set_value(str(file)).run()  # whoever types it may read it
    assert not app.exception
    assert str(file) not in in_the_link(app).values()
    assert app.text_input(key="live schedule").value == str(file)


def test_a_budget_that_was_not_kept_is_said(runs: Path) -> None:
    app = open_app("live", trace=FULL)
    app.number_input(key="live steps").set_value(3)
    app.selectbox(key="live policy").set_value("budget").run()
    press(app)
    kept = set()
    for share in (0.99, 0.5, 0.2, 0.1):
        options = app.select_slider(key="live budget").options
        asked = float(options[round(share * len(options)) - 1])  # GFLOPs per image, of three steps
        app.select_slider(key="live budget").set_value(float(f"{asked / 3:.4g}")).run()
        job = app.session_state["job"]
        job.join(60)
        app.run()
        price = job.cost.at_exit(with_uem=True)[job.early.exit_layers].sum(axis=1).mean()
        assert 3 * job.budget == pytest.approx(asked, rel=1e-3)
        assert f"Early exit, budget of {3 * job.budget:.4g} GFLOPs per image@{FULL}" in titles(app)
        kept.add(price <= asked)
        assert (f"These images took {price:.4g} GFLOPs each" in sentences(app)) == (price > 3 * job.budget)
    assert kept == {True, False}


def test_two_networks_are_named_by_their_runs_and_are_no_exit(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2)
    app.selectbox(key="live policy").set_value("dual").run()
    app = press(app)
    assert "Two networks, dual:500:toy" in titles(app)
    assert [tile["caption"] for tile in shown_tiles(app, "live Early exit")] == [f"image {k}" for k in range(4)]
    assert not [title for title in titles(app) if title.startswith("Early exit")]


def test_the_command_of_a_recording_has_the_settings_of_the_page(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(7)
    app.number_input(key="live seed").set_value(3)
    app.number_input(key="live images").set_value(5)
    app.selectbox(key="live policy").set_value("oracle").run()
    command = next(block.value for block in app.code if block.value.startswith("deediff sample"))
    settings = parse_arguments(Sample, shlex.split(command)[2:], "deediff sample").settings
    assert settings.solver == app.selectbox(key="live solver").value
    assert (settings.steps, settings.seed, settings.num_samples) == (7, 3, 5)
    assert (settings.policy, settings.record, settings.deviations) == ("never", "full", True)


def test_a_setting_that_cannot_be_sampled_is_said_where_the_images_would_be(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2)
    app = press(app)
    assert shown_tiles(app, "live Early exit")
    app.selectbox(key="live policy").set_value("schedule").run()
    app.text_input(key="live schedule").set_value("no such file").run()
    problem = app.session_state["live problem"]
    assert "no such file" in problem
    columns = app.columns
    assert problem in [error.value for column in columns[1:] for error in column.error]
    assert problem not in [error.value for error in columns[0].error]
    assert not [e for e in app.get("bidi_component") if e.proto.id.endswith("-live Early exit")]
    app.selectbox(key="live policy").set_value("never").run()
    assert not app.error
