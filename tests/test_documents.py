"""The documents: examples run, commands and options exist, and links lead to files."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from deediff.cli import main as deediff_main
from deediff.diffusion.solvers import SOLVERS
from deediff.models import BACKBONES
from deediff.models.heads import HEADS
from deediff.policies import POLICIES
from deediff.readouts import READOUTS
from tests.conftest import REPO
from trainer.run import main as trainer_main

DOCUMENTS = sorted(path for path in (*REPO.glob("*.md"), *REPO.glob("[a-z]*/*.md")))
REGISTRIES: tuple[dict[str, Any], ...] = (BACKBONES, HEADS, POLICIES, READOUTS, SOLVERS)  # examples add to them


def blocks(language: str) -> Iterator[tuple[Path, str, str]]:
    """Every fenced block of a language: document, the heading above it, content."""
    for document in DOCUMENTS:
        heading = ""
        for line in re.findall(r"^#+ [^\n]*$|^```.*?^```$", document.read_text(encoding="utf-8"), re.M | re.S):
            if line.startswith("#"):
                heading = line.lstrip("# ")
            elif line.startswith(f"```{language}\n"):
                yield document, heading, line.removeprefix(f"```{language}\n").removesuffix("```")


def commands() -> Iterator[Any]:
    """Every command of this project in the documents."""
    for document, _, block in blocks("bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            ends = [i for i, word in enumerate(words) if word in ("deediff", "trainer.run")] + [len(words)]
            for first, last in pairwise(ends):
                parts = words[first:last]
                yield pytest.param(parts, id=f"{document.relative_to(REPO)}: {' '.join(parts)[:60]}")


@cache
def help_of(*command: str) -> str:
    """The output of a command's --help."""
    printed: list[str] = []
    with mock.patch("sys.stdout.write", printed.append), mock.patch.dict("os.environ", {"COLUMNS": "200"}):
        try:
            code = {"deediff": deediff_main, "trainer.run": trainer_main}[command[0]]([*command[1:], "--help"])
        except SystemExit as stop:
            code = stop.code
    assert not code, f"{' '.join(command)} is not a command"
    return "".join(printed)


@pytest.mark.parametrize("words", commands())
def test_a_command_has_the_options_of_the_documents(words: list[str]) -> None:
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    name = [word for word in words[1:3] if re.fullmatch(r"[a-z][a-z0-9:_]*", word)]
    known = help_of(words[0], *name[: 2 if name[:1] == ["bench"] else 1])
    assert set(options) <= {*re.findall(r"--[\w.-]+", known), "--help", "--version"}


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=f"{path.relative_to(REPO)}: {title}") for path, title, code in blocks("python")]
)
def test_an_example_runs(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)  # dataclasses look up their module
    monkeypatch.chdir(REPO)
    with ExitStack() as stack:
        for registry in REGISTRIES:
            stack.enter_context(mock.patch.dict(registry))
        exec(compile(code, "example", "exec"), vars(module))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_links_lead_to_files(document: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose)
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (document.parent / target).exists()] == []
