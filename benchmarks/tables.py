# SPDX-License-Identifier: MIT
"""Writes the README's table of measured speeds from benchmarks/results; no figure by hand.

    python benchmarks/tables.py [--check]

The text between the two markers in README.md is replaced. With --check nothing is written, and the
exit code is 1 if the README does not hold what the records say.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> int:
    """Write or check the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    renewed = f"{before}{BEGIN}\n{tables()}{END}{after}"
    if check:
        if renewed != text:
            print("README.md does not hold the recorded figures: run benchmarks/tables.py")
        return int(renewed != text)
    README.write_text(renewed)
    return 0


def tables() -> str:
    """Markdown of every recorded whole iteration, GPUs first."""
    files = sorted(RESULTS.glob("*.json"), key=lambda path: (path.stem == "cpu", path.stem))
    parts = []
    for path in files:
        for section, record in sorted(json.loads(path.read_text()).items()):
            if section.startswith("step "):
                parts.append(step_table(section, record))
    return "\n".join(parts)


def step_table(section: str, record: dict) -> str:
    """One table: every contender, fastest first, with its ratio to ours."""
    rows = sorted(record["rows"], key=lambda row: row["milliseconds"]["median"])
    machine = record["machine"]
    size, batch, *rest = section.removeprefix("step ").replace("batch ", "").split(maxsplit=2)
    batch = " ".join([batch, *rest])
    # On a GPU ours has one precision; on a CPU each precision of ours is a row of its own.
    best = min(
        (row["milliseconds"]["median"] for row in rows if row["contender"].startswith("ours")),
        default=None,
    )
    lines = [
        f"One iteration, {size} x {size}, batch {batch}, {device_words(machine)}:",
        "",
        "| | ms | of our fastest | TFLOP/s | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        median = row["milliseconds"]["median"]
        ratio = f"{median / best:.2f}x" if best else "-"
        memory = row["peak_memory_mib"] or "-"
        name = row["contender"]
        name = f"**{name}**" if name.startswith("ours") else name
        lines.append(f"| {name} | {median:.2f} | {ratio} | {row['tflop_per_s']} | {memory} |")
    return "\n".join(lines) + "\n"


def device_words(machine: dict) -> str:
    """The provenance of a record in a line."""
    device = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} threads"
    return (
        f"{device}, torch {machine['torch']}, "
        f"commit {machine['commit'][:12]}, {machine['date'][:10]}"
    )


if __name__ == "__main__":
    sys.exit(main())
