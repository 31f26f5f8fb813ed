"""The public API of `deediff`, and the modules that importing it loads."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.resources import files

import pytest

import deediff

API = {
    *("Backbone", "EarlyExitModel", "ExitPolicy", "SamplingSettings", "Schedule", "Solver", "Step"),
    *("Plan", "PlanStep", "Readout", "Trace", "UEM", "UserError"),
    *("explore", "load", "make_backbone", "make_policy", "make_solver", "read_trace", "recalibrate", "sample"),
}


def run_python(code: str) -> str:
    """The output of `code` in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_exports_these_names() -> None:
    assert len(deediff.__all__) == len(API)
    assert set(deediff.__all__) == API
    assert set(dir(deediff)) >= API


@pytest.mark.parametrize("name", sorted(API))
def test_a_name_is_the_object_of_the_module_that_defines_it(name: str) -> None:
    module = importlib.import_module(deediff._MODULES.get(name, "deediff"))
    assert getattr(deediff, name) is getattr(module, name)
    assert getattr(deediff, name).__module__.startswith(module.__name__)


def test_a_submodule_is_not_imported_by_attribute() -> None:
    code = "import deediff\ntry:\n    deediff.bench\nexcept AttributeError as error:\n    print(error)"
    assert run_python(code) == "module 'deediff' has no attribute 'bench'\n"


def test_reading_a_trace_does_not_import_torch() -> None:
    code = "import sys, deediff; deediff.{}; print('torch' in sys.modules)"
    assert run_python(code.format("read_trace")) == "False\n"
    assert run_python(code.format("sample")) == "True\n"


def test_the_package_is_typed() -> None:
    assert files("deediff").joinpath("py.typed").is_file()
