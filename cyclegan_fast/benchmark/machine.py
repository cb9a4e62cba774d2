# SPDX-License-Identifier: MIT
"""Everything that a figure depends on."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

import cyclegan_fast
from cyclegan_fast import _extension


def facts(device: str, commit: str | None = None) -> dict[str, object]:
    """Return processor or GPU, versions, commit, threads and date.

    Args:
        device: "cpu" or "cuda".
        commit: of the sources; None for the one that the package was built from.
    """
    found: dict[str, object] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or _built_from(),
        "cyclegan_fast": cyclegan_fast.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return found


def processor() -> str:
    """Return the processor's model name."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _built_from() -> str:
    try:
        return str(_extension.build_info()["commit"] or "unknown")
    except ImportError:
        return "unknown"


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, check=True, capture_output=True, text=True).stdout
        return told.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        return None
