# SPDX-License-Identifier: MIT
"""What the compilers made of each CUDA and Triton kernel, per architecture; needs no GPU.

    python benchmarks/compile_report.py [--language cuda|triton]      the other's table is kept

Reads the compiled library with the cuobjdump that Triton brings, has Triton compile its kernels,
prints a table, and writes benchmarks/results/compile.json: registers per thread, bytes of shared
memory per block (static for CUDA), and bytes of local memory and stack per thread, which a spill
would show in.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cubin
import triton

from cyclegan_fast import _build_info

RECORD = Path(__file__).parent / "results" / "compile.json"
LIBRARY = Path(_build_info.__file__).parent / "_cuda.so"
COLUMNS = ("registers", "shared", "local", "stack")


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
    found, architecture, name = [], "", ""
    for line in _output(["c++filt"], cubin.usage(library)).splitlines():
        if match := re.match(r"arch = (\w+)", line):
            architecture = match[1]
        elif match := re.match(r" *Function (.*):$", line):
            name = _short(match[1])
        elif "REG:" in line:
            numbers = cubin.numbers(line)
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
    compilers = {
        "cuda": f"nvcc {_build_info.build_info()['cuda']}",
        "triton": f"Triton {triton.__version__}",
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--language", choices=list(compilers), help="only these kernels")
    wanted = parser.parse_args().language
    known = json.loads(RECORD.read_text()) if wanted else {"compilers": compilers}
    tables = {}
    for language, found in {"cuda": kernels, "triton": _triton_kernels}.items():
        if wanted in (None, language):
            tables[language] = _table(found())
        else:
            tables[language] = known[language]
            compilers[language] = known["compilers"][language]
    sections = [f'"compilers": {json.dumps(compilers)}', f'"columns": {json.dumps(COLUMNS)}']
    for language, table in tables.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table.items()]
        sections.append(f'"{language}": {{\n' + ",\n".join(lines) + "\n}")
    RECORD.write_text("{" + ",\n".join(sections) + "}\n")
    print(f"written to {RECORD}")


def _triton_kernels() -> list[Kernel]:
    # Another process: this one may have been told to interpret kernels.
    command = [sys.executable, str(Path(__file__).with_name("triton_compile.py"))]
    return [
        Kernel(k["name"], f"sm_{k['architecture']}", *(k[column] for column in COLUMNS))
        for k in json.loads(_output(command))
    ]


def _table(rows: list[Kernel]) -> dict[str, dict[str, list[int]]]:
    """Print rows, and return them as {kernel: {architecture: numbers}}."""
    names = sorted({row.name for row in rows})
    for name in names:
        registers = [f"{k.architecture} {k.registers}" for k in rows if k.name == name]
        print(f"{name}: registers {', '.join(registers)}")
    spilled = [f"{row.name} ({row.architecture})" for row in rows if row.local or row.stack]
    print(f"{len(names)} kernels, {len(rows)} binaries; with local memory: {spilled or 'none'}")
    table: dict[str, dict[str, list[int]]] = {name: {} for name in names}
    for row in rows:
        table[row.name][row.architecture] = [getattr(row, column) for column in COLUMNS]
    return table


if __name__ == "__main__":
    main()
