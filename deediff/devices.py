"""Devices, precision, and the versions recorded with a result."""

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

from deediff.digits import whole_number
from deediff.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` selects CUDA, else MPS, else the CPU. Under torchrun each process takes the GPU of its local rank.

    Raises UserError when the named device is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name):
        raise UserError(f"device {name} is not available on this machine: use --device auto or cpu")
    return torch.device(name, _local_rank()) if name == "cuda" else torch.device(name)


def _local_rank() -> int:
    """The number of this process's GPU. Raises UserError when there is no such GPU."""
    text, count = os.environ.get("LOCAL_RANK", "0"), torch.cuda.device_count()
    number = whole_number(text)
    if number is None or number >= count:
        raise UserError(f"LOCAL_RANK is {text!r} in the environment, expected the number of one of {count} GPUs")
    return number


def torchrun_process() -> tuple[int, int]:
    """Rank and world size of this process, from torchrun's environment; (0, 1) without one.

    Raises UserError when they are invalid, or only the world size is given.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None and world is not None:
        raise UserError(f"WORLD_SIZE is {world!r} in the environment without RANK: start with torchrun, or unset it")
    rank, world = rank or "0" if world is None else str(rank), "1" if world is None else world
    number, count = whole_number(rank), whole_number(world)
    if number is None or count is None or number >= count:
        raise UserError(f"RANK is {rank!r} of WORLD_SIZE {world!r}, expected 0 ≤ RANK < WORLD_SIZE in the environment")
    return number, count


@cache
def keep_freed_memory() -> None:
    """Make glibc's malloc keep large freed blocks for the next tensor of the same size, in this process.

    By default it returns them to the system, which zeroes every page on the next allocation: several per cent of
    the time of a network on the CPU. No effect with other C libraries.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD: the maximum
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


def autocast(device: torch.device, dtype: str = "auto") -> torch.autocast:
    """bfloat16 on CUDA unless `dtype` is "float32"; no change elsewhere."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda" and dtype != "float32")


@contextmanager
def training_precision(device: torch.device, precision: str = "auto") -> Iterator[None]:
    """Autocast for training: "float32", "bfloat16", or "auto" (bfloat16 on CUDA, else float32)."""
    bf16 = device.type == "cuda" if precision == "auto" else precision == "bfloat16"
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=bf16))
        if bf16 and device.type == "cpu":  # the fused attention's backward pass takes half the step on CPUs
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def device_name(device: torch.device) -> str:
    """The device's name, recorded with a result."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return f"{names[0]} ({os.cpu_count()} cores)" if names else "cpu"
    return device.type


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    names = ("torch", "numpy", "pyarrow")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
