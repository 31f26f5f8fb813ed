"""Command lines to objects: help for every argument, and one sentence with exit code 2 for bad usage."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from deediff import __version__
from deediff.cli import main
from deediff.cli.command import Command
from deediff.cli.entry import COMMANDS
from deediff.cli.errors import run_command
from deediff.errors import UserError
from tests.conftest import REPO


def command_class(name: str) -> type[Command]:
    module, kind = COMMANDS[name][0].split(".")
    return getattr(import_module(f"deediff.cli.{module}"), kind)


def test_the_overview_names_every_command_and_imports_no_torch() -> None:
    code = "import sys; from deediff.cli import main; code = main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO, capture_output=True, text=True)
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert summary in done.stdout


def test_the_overview_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    assert [line.split()[1] for line in text.splitlines() if line.startswith("  ")] == [
        name.split()[1] for name in COMMANDS if name.startswith("bench ")
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"deediff {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_argument(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    kind = command_class(name)
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert kind.__doc__ is not None
    assert kind.__doc__.splitlines()[0] in text
    assert max(map(len, text.splitlines())) <= 110
    entries = {entry.split()[0].rstrip(","): entry for entry in re.split(r"\n[ │]*(?=--[a-z])", text)[1:]}
    assert all(re.search(r"[A-Za-z]+ [a-z]+", entry.split("(default")[0]) for entry in entries.values())
    positional = {"checkpoint", "checkpoints", "trace", "traces", "path", "runs", "folder", "settings"}
    shown = {field.name for field in fields(kind)} - ({"json"} if name == "explore" else set())
    options = {f"--{field.replace('_', '-')}" for field in shown if field not in positional}
    assert options <= entries.keys() | {"--checkpoint"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "no command given, expected one of: explore, sample, "),
        ("smaple", "unknown command 'smaple', expected one of: "),
        ("bench", "unknown command 'bench'"),
        ("sample", "missing: CHECKPOINT, --out STR; see deediff sample --help"),
        ("sample x --out", "missing value of --out; see deediff sample --help"),
        ("trends x --threshold 1", "unrecognized arguments: --threshold, 1 (did you mean --thresholds?); see "),
        ("sample x --out y --step 3", "unrecognized arguments: --step, 3 (did you mean --steps or --timesteps?); see "),
        (
            "sample x --out y --solver euler",
            "--solver: invalid choice 'euler', expected 'ddim', 'ddpm', ",
        ),
        ("sample x --out y --seed 1.5", "--seed: '1.5' is not a whole number; see deediff sample --help"),
        ("sample x --out y --eta little", "--eta: 'little' is not a number; see deediff sample --help"),
        ("sample x --out y --maps 3", "--maps: '3' is not a range of samples, expected A:B, for example 0:4; see"),
        ("compare", "TRACE [TRACE ...]: give at least one trace; see deediff compare --help"),
        ("compare x --format pdf", "--format: invalid choice 'pdf', expected 'text', 'csv', 'parquet', 'latex'; see"),
        ("variance x --draws 0", "--draws: '0' is not a whole number of 1 or more; see deediff variance --help"),
        ("import x --layout uvit", "missing: --out PATH; see deediff import --help"),
    ],
)
def test_bad_usage_is_one_sentence(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {sentence}")
    assert message.count("\n") == 1


@pytest.mark.parametrize("columns", ["40", "300"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_sentence_does_not_depend_on_the_terminal(columns: str, encoding: str, run: Path) -> None:
    command = [sys.executable, "-m", "deediff.cli", "trends", str(run), "--threshold", "0.1"]
    environment = {"COLUMNS": columns, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True)
    sentence = "unrecognized arguments: --threshold, 0.1 (did you mean --thresholds?); see deediff trends --help"
    assert (done.returncode, done.stderr) == (2, f"error: {sentence}\n")


def raises(error: BaseException) -> Any:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("the batch size is 0"), 2, "error: the batch size is 0\n"),
        (PermissionError(13, "Permission denied", "x"), 2, "error: x: Permission denied: completed work"),
        (KeyError("x"), 2, "error: KeyError ('x'): a damaged file or a bug; DEEDIFF_DEBUG=1 shows where\n"),
        (MemoryError("9 TiB"), 2, "error: out of memory (9 TiB): completed work is kept; smaller batches need less\n"),
        (RuntimeError("can't allocate memory: you tried"), 2, "error: out of memory (can't allocate memory: you"),
        (KeyboardInterrupt(), 130, "stopped: completed work is kept; run the same command again to resume\n"),
    ],
)
def test_every_error_becomes_a_sentence_and_an_exit_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEEDIFF_DEBUG", raising=False)
    assert run_command(raises(error)) == code
    assert capsys.readouterr().err.startswith(message)


def test_ctrl_c_while_a_command_is_imported_ends_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "deediff.cli.entry":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "deediff.cli.entry")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert main(["--help"]) == 130
    assert capsys.readouterr().err == "stopped: completed work is kept; run the same command again to resume\n"


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEDIFF_DEBUG", "1")
    with pytest.raises(KeyError):
        run_command(raises(KeyError("x")))
    assert run_command(raises(UserError("x"))) == 2
