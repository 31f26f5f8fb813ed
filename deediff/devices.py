"""Where the work is done, and with what."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from deediff.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """auto: CUDA, else MPS, else the CPU; under torchrun each process takes its own GPU.

    Raises UserError when the named device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name):
        raise UserError(f"device {name} was asked for but is not available here: use --device auto or cpu")
    return torch.device(name, int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


@cache
def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep large freed blocks for the next tensor of that size, in this process.

    By default it gives them back and gets every page anew, zeroed: a tenth to a third of the time of a
    network on the CPU. Does nothing elsewhere.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, at its largest
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on CUDA, nothing elsewhere."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")


@contextmanager
def training_precision(device: torch.device, precision: str = "auto") -> Iterator[None]:
    """What a loss is computed in: "float32", "bfloat16", or "auto": bfloat16 on CUDA, float32 elsewhere."""
    bf16 = device.type == "cuda" if precision == "auto" else precision == "bfloat16"
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=bf16))
        if bf16 and device.type == "cpu":  # the backward pass of the fused attention takes half of a step there
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def device_name(device: torch.device) -> str:
    """The device in words, for the record of a result."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return f"{names[0]} ({os.cpu_count()} cores)" if names else "cpu"
    return device.type


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("torch", "numpy", "pyarrow")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
