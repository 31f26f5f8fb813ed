"""Checks the wheel: builds it from the files in git, installs it into a fresh environment, and uses it from there.

The environment reads the dependencies of the current one, which saves downloading them again; its `deediff`, `trainer`
and `app` come from the wheel. Hence a separate check that the wheel requires every package that its code imports. All
commands run in an empty folder outside the repository, on generated images.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

REPO = Path(__file__).resolve().parents[1]
START = 120.0  # seconds for the explorer to answer
OPTIONAL = {"diffusers", "optuna", "pillow-heif", "pillow-jxl", "playwright"}  # their absence is a sentence
DRAW = """
from pathlib import Path
import app
from streamlit.testing.v1 import AppTest
page = AppTest.from_file(str(Path(app.__file__).parent / "explorer.py"), default_timeout=120).run()
problems = [element.value for element in (*page.exception, *page.error)]
assert not problems, problems
print("the first page has", len(page.metric), "figures")
"""
SHORT = (
    *("--backbone.steps", "2", "--backbone.batch-size", "4", "--exits.steps", "2", "--exits.batch-size", "4"),
    *("--sample-every", "0", "--device", "cpu"),
)


def tracked(folder: str) -> list[str]:
    """Paths of the files in git below a folder of the repository."""
    command = ["git", "ls-files", "-z", folder]
    names = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if (REPO / name).is_file()]


def is_document(name: str) -> bool:
    """READMEs and their pictures, which the wheel does not need."""
    return name.endswith(".md") or (name.startswith("app/assets/") and name != "app/assets/icon.png")


def build(folder: Path) -> Path:
    """Build the wheel from a copy of the files in git, without leftovers of earlier builds."""
    source = folder / "source"
    for name in tracked("."):
        if not name.startswith(("runs/", "tests/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, source / name)
    subprocess.run([sys.executable, "-m", "build", "-q", "--wheel", "--outdir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_requirements(wheel: Path) -> None:
    """Every third-party package that the wheel's code imports is among the requirements of its metadata."""
    required, imported = set(), dict[str, str]()
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/METADATA"):
                lines = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
                required = {distribution(re.split(r"[^\w.-]", line)[0]) for line in lines if "extra ==" not in line}
            elif name.endswith(".py"):
                imported |= dict.fromkeys(imports(archive.read(name)), name)
    found = packages_distributions()
    ours = {"app", "deediff", "trainer", *sys.stdlib_module_names}
    for module, file in sorted(imported.items()):
        names = {distribution(name) for name in found.get(module, [module])}
        assert module in ours or names & (required | OPTIONAL), f"{file} imports {module}: add it to the dependencies"


def distribution(name: str) -> str:
    """A distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imports(source: bytes) -> set[str]:
    """The top-level packages that a file imports."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in names}


class Installed:
    """An environment with the wheel, and an empty working folder."""

    def __init__(self, wheel: Path, folder: Path):
        self.folder, self.environment = folder / "work", folder / "venv"
        self.folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", self.environment], check=True)
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DEEDIFF"))}
        self.variables["PATH"] = f"{self.environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.run("pip", "install", "-qq", "--no-deps", str(wheel))
        # Adds a folder to sys.path but not the .pth files in it, hence no editable install of the repository.
        packages = next((self.environment / "lib").glob("python*")) / "site-packages"
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *command: str) -> str:
        """Run a command of this environment in the working folder; returns what it prints."""
        print("$", *command, flush=True)
        done = subprocess.run(command, cwd=self.folder, env=self.variables, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="", flush=True)
        done.check_returncode()
        return done.stdout

    def check_packages(self) -> None:
        """The packages are imported from this environment, and include their data."""
        for package in ("app", "deediff", "trainer"):
            found = self.run("python", "-c", f"import {package}; print({package}.__file__)").strip()
            assert Path(found).is_relative_to(self.environment), f"{package} is imported from {found}"
            there = Path(found).parents[1]
            missing = [name for name in tracked(package) if not (there / name).exists() and not is_document(name)]
            assert not missing, f"the wheel lacks {', '.join(missing)}: add them to package-data in pyproject.toml"

    def explore(self, runs: str) -> None:
        """Draw the explorer's first page; start its server, and read its health and its HTML."""
        self.run("env", f"DEEDIFF_RUNS={runs}", "python", "-c", DRAW)
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        address = f"http://localhost:{port}"
        variables = {**self.variables, "STREAMLIT_SERVER_PORT": str(port), "STREAMLIT_SERVER_HEADLESS": "true"}
        server = subprocess.Popen(["deediff", "explore", runs], cwd=self.folder, env=variables)
        try:
            assert read(f"{address}/_stcore/health", server) == "ok"
            page = read(address, server)
            assert "<title>Streamlit</title>" in page
            assert 'id="plotly"' in page, "the page's head lacks what app/shell adds to it"
        finally:
            server.terminate()
            server.wait(30)


def read(address: str, server: subprocess.Popen[bytes]) -> str:
    """The response at this address, once the server answers."""
    end = time.monotonic() + START
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as response:
                return str(response.read().decode())
        except OSError:  # refused, or no answer in time
            assert server.poll() is None, f"the explorer ended with exit code {server.returncode}"
            assert time.monotonic() < end, f"{address} does not answer within {START:.0f} s"
            time.sleep(0.2)


def write_images(folder: Path, count: int = 128) -> None:
    """Images of random colours."""
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    for number, pixels in enumerate(colours):
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{number}.png")


def main() -> int:
    """Returns the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        check_requirements(wheel)
        installed = Installed(wheel, folder)
        installed.check_packages()
        assert installed.run("deediff", "--version").startswith("deediff ")
        write_images(installed.folder / "images")
        installed.run("python", "-m", "trainer.run", "uvit_tiny", "--dataset", "images", *SHORT, "--out", "runs/tiny")
        sample = ("deediff", "sample", "runs/tiny", "--steps", "2", "--num-samples", "40", "--device", "cpu", "--json")
        for trace, policy in {"threshold": "threshold:0.5", "ase": "schedule:ase"}.items():  # ase.json is package data
            printed = installed.run(*sample, "--policy", policy, "--out", f"runs/tiny/traces/{trace}")
            assert json.loads(printed)["complete"]
        evaluate = ("deediff", "evaluate", "--reference", "images", "--metrics", "fd-cifar")  # weights: package data
        installed.run(*evaluate, "runs/tiny/traces/threshold")
        installed.explore("runs")
    print("the wheel works outside the repository")
    return 0


if __name__ == "__main__":
    sys.exit(main())
