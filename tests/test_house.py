"""The limits that keep the code readable: lengths of files, sizes of folders, names, parameters."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

from tests.conftest import REPO

SOURCES = [
    path for room in ("deediff", "app", "trainer", "tests", ".ci") for path in sorted((REPO / room).rglob("*.py"))
]
LINES = 300  # per source file
MODULES = 15  # per folder, without __init__.py
SKIPS = 20  # formatter exceptions in the repository
README_LINES = 150
PARAMETERS = 7  # of a function, without those that **keywords stands for


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def name(path: Path) -> str:
    return str(path.relative_to(REPO))


def test_no_source_file_is_long() -> None:
    assert {name(path): lines(path) for path in SOURCES if lines(path) > LINES} == {}


def test_no_folder_has_many_modules() -> None:
    modules = [path for path in SOURCES if path.name != "__init__.py"]
    folders = Counter(name(path.parent) for path in modules if name(path).startswith(("app/", "deediff/")))
    assert {folder: count for folder, count in folders.items() if count > MODULES} == {}


def test_the_formatter_has_few_exceptions() -> None:
    marker = "# fmt: " + "skip"
    marked = [name(path) for path in SOURCES for line in path.read_text(encoding="utf-8").split("\n") if marker in line]
    assert len(marked) < SKIPS, Counter(marked)


def test_the_readme_is_short() -> None:
    assert lines(REPO / "README.md") <= README_LINES


def test_public_functions_and_classes_have_different_names() -> None:
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        if name(path).startswith(("app/", "deediff/", "trainer/")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    found.setdefault(node.name, []).append(name(path))
    del found["main"]  # of each command line
    assert {public: paths for public, paths in found.items() if len(paths) > 1} == {}


def test_functions_have_few_parameters() -> None:
    many = []
    for path in SOURCES:
        if name(path).startswith(("app/", "deediff/", "trainer/")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                    if len(set(names) - {"self", "cls"}) > PARAMETERS:
                        many.append(f"{name(path)}: {node.name}")
    assert many == []


def test_every_mutant_applies_to_one_place_and_names_tests() -> None:
    spec = importlib.util.spec_from_file_location("mutants", REPO / ".ci" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"mutants": module}):  # its dataclass looks itself up there
        spec.loader.exec_module(module)
    for mutant in module.MUTANTS:
        assert (REPO / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1, mutant.name
        assert all((REPO / path).exists() for path in mutant.tests.split()), mutant.name
