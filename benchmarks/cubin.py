# SPDX-License-Identifier: MIT
"""What a compiled kernel needs of a GPU, read with the cuobjdump that Triton brings."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import triton

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def usage(file: Path | str) -> str:
    """Return what the tool says about the kernels of a cubin or of a library that holds some."""
    command = [str(TOOL), "--dump-resource-usage", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def numbers(line: str) -> dict[str, int]:
    """Return REG, SHARED, LOCAL, STACK ... of the line about one kernel, which holds "REG:"."""
    return {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
