"""What figures hang on: the machine, its kernel and file system, and the versions of what was measured."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["file_system", "machine"]


def machine(folder: Path) -> dict[str, Any]:
    """The machine, the disk that `folder` lies on, and the tools' versions."""
    cpu = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    models = {key.strip(): value.strip() for key, value in cpu.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]  # noqa: S607
    return {
        "cpu": models.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "rust": rust,
        "python": platform.python_version(),
        "switch": version("campus-card-switch"),
        "load_before": os.getloadavg()[0],
    }


def file_system(folder: Path) -> str:
    """The type of the file system that `folder` lies on."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [(len(point), kind) for _, point, kind, *_ in mounts if folder.is_relative_to(point)]
    return max(holding)[1] if holding else "unknown"
