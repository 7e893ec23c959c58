"""What the numbers were measured on, and whether it was quiet."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe", "load", "noise"]

_PACKAGES = ("aptt", "torch", "kornia", "monai", "segmentation-models-pytorch")
_PACKAGES += ("triton", "liger-kernel", "cut-cross-entropy")
_QUIET = 0.5  # processes that may be running besides ours


def describe(device: str = "cpu") -> dict[str, Any]:
    """CPU, cores, the accelerator if it is one, and the versions of what is compared."""
    there = torch.get_device_module(device)
    name = there.get_device_name(device) if hasattr(there, "get_device_name") else device
    return {
        "accelerator": None if device == "cpu" else name,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def load() -> float | None:
    """How many processes ran or waited to, on average over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def noise(start: float | None, end: float | None, threads: int) -> list[str]:
    """Warnings: at the start nothing should run, at the end nothing but ``threads`` of ours.

    ``end`` may be ``None`` as long as it has not come.
    """
    if start is None:
        return ["this system states no load average, so nobody knows whether it was quiet"]
    found = []
    if start > _QUIET:
        found.append(
            f"the machine was not quiet: load average {start:.2f} at the start, wanted {_QUIET} at "
            "most (another run a minute ago counts too)"
        )
    if end is not None and end > threads + _QUIET:
        found.append(
            f"the machine was not quiet: load average {end:.2f} at the end, wanted "
            f"{threads + _QUIET} at most, with {threads} threads of ours"
        )
    return found


def _cpu() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        rows = []
    named = (row.partition(":")[2].strip() for row in rows if row.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
