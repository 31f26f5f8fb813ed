"""`deediff explore`: the server's command line, from a checkout and elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deediff.cli import explore, main
from tests.conftest import REPO


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The command lines and environments of the servers that are started."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def execve(_: str, command: list[str], environment: dict[str, str]) -> None:
        calls.append((command, environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.delenv("DEEDIFF_RUNS", raising=False)
    return calls


def flags(command: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=") for word in command if word.startswith("--"))


def test_the_server_shows_the_given_folder(started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["explore", "mine", "--port", "8765", "--headless"]) == 0
    ((command, environment),) = started
    assert command[:5] == [sys.executable, "-m", "streamlit", "run", str(REPO / "app" / "main.py")]
    assert environment["DEEDIFF_RUNS"] == str(tmp_path / "mine")
    assert flags(command) == {"server.port": "8765", "server.headless": "true"}


def test_the_default_folder(started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["explore"]) == 0
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("DEEDIFF_RUNS", str(tmp_path / "other"))
    assert main(["explore"]) == 0
    assert [environment["DEEDIFF_RUNS"] for _, environment in started] == [str(tmp_path / n) for n in ("runs", "other")]


def test_the_options_are_those_of_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = tomllib.loads((REPO / ".streamlit" / "config.toml").read_text())

    def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in table.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return found

    code = "import json, sys; from streamlit import config; config._main_script_path = sys.argv[1]; "
    code += "config.get_config_options(True); print(json.dumps([config.get_option(key) for key in sys.argv[2:]]))"
    options = flat(content)
    command = [sys.executable, "-c", code, str(explore.MAIN), *options]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == list(options.values())


def test_a_folder_that_does_not_exist(
    started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explore"]) == 2
    assert main(["explore", "nowhere"]) == 2
    assert not started
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"error: {name} is not a folder: give a folder of runs, for example deediff explore path/to/runs"
        for name in ("runs", "nowhere")
    ]


def test_a_port_out_of_range(started: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", str(tmp_path), "--port", "99999"]) == 2
    assert "port is 99999, expected 1 … 65535" in capsys.readouterr().err
    assert not started


def test_an_installation_without_the_explorer(
    started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deediff.explorer.MAIN", tmp_path / "app" / "main.py")
    assert main(["explore", str(tmp_path)]) == 2
    assert "the explorer is not installed beside deediff" in capsys.readouterr().err


def test_the_command_imports_neither_the_explorer_nor_streamlit() -> None:
    code = "import sys, deediff.cli.explore; assert not {'app', 'streamlit', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)
