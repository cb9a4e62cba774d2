# SPDX-License-Identifier: MIT
"""What the compiler made of each CUDA kernel, per architecture; needs no GPU.

    python benchmarks/compile_report.py

Reads the compiled library with the cuobjdump that Triton brings, prints a table, and writes
benchmarks/results/compile.json: registers per thread, bytes of static shared memory per block, and
bytes of local memory and stack per thread, which a spill would show in.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import triton

from cyclegan_fast import _build_info

RECORD = Path(__file__).parent / "results" / "compile.json"
LIBRARY = Path(_build_info.__file__).parent / "_cuda.so"
TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture."""

    name: str
    architecture: str
    registers: int
    shared: int
    local: int
    stack: int


def kernels(library: Path = LIBRARY) -> list[Kernel]:
    """Return every kernel of a compiled library, by architecture and name."""
    text = _output([str(TOOL), "--dump-resource-usage", str(library)])
    found, architecture, name = [], "", ""
    for line in _output(["c++filt"], text).splitlines():
        if match := re.match(r"arch = (\w+)", line):
            architecture = match[1]
        elif match := re.match(r" *Function (.*):$", line):
            name = _short(match[1])
        elif "REG:" in line:
            numbers = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            sizes = (numbers[key] for key in ("REG", "SHARED", "LOCAL", "STACK"))
            found.append(Kernel(name, architecture, *sizes))
    return sorted(found, key=lambda k: (k.name, int(re.sub(r"\D", "", k.architecture))))


def _short(signature: str) -> str:
    """The kernel's name and template arguments, without what all of them have."""
    name = re.sub(r"^void |\(anonymous namespace\)::|cyclegan_fast::", "", signature)
    return name.partition("(")[0]


def _output(command: list[str], text: str | None = None) -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Print and write the report."""
    if not LIBRARY.exists():
        print(f"{LIBRARY} is not there: {_build_info.build_info()['no_cuda']}; nothing to report")
        return
    rows = kernels()
    names = sorted({row.name for row in rows})
    for name in names:
        registers = [f"{k.architecture} {k.registers}" for k in rows if k.name == name]
        print(f"{name}: registers {', '.join(registers)}")
    spilled = [f"{row.name} ({row.architecture})" for row in rows if row.local or row.stack]
    print(f"{len(names)} kernels, {len(rows)} binaries; with local memory: {spilled or 'none'}")
    table: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        numbers = [row.registers, row.shared, row.local, row.stack]
        table.setdefault(row.name, {})[row.architecture] = numbers
    lines = [f"  {json.dumps(name)}: {json.dumps(table[name])}" for name in names]
    columns = json.dumps(["registers", "shared", "local", "stack"])
    body = ",\n".join(lines)
    compiler = json.dumps(f"nvcc {_build_info.build_info()['cuda']}")
    head = f'"compiler": {compiler}, "columns": {columns}'
    RECORD.write_text(f'{{{head}, "cuda": {{\n{body}\n}}}}\n')
    print(f"written to {RECORD}")


if __name__ == "__main__":
    main()
