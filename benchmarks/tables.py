# SPDX-License-Identifier: MIT
"""Writes the tables of README.md and docs/speed.md from benchmarks/results; no figure by hand.

    python benchmarks/tables.py [--check]

The text between two markers is replaced: in the README the measured speeds, in docs/speed.md the
counted launches, and how far the goals are. With --check nothing is written, and the exit code is 1
if a page does not hold what the records say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import goals
from records import ROOT

from cyclegan_fast.benchmark.pages import step_table

RESULTS = ROOT / "benchmarks" / "results"


class Place(NamedTuple):
    """Where a table stands: between the markers of its name."""

    page: Path
    name: str
    table: Callable[[], str]

    def renewed(self, text: str) -> str:
        """Return the page's text with the table that the records make."""
        begin, end = (f"<!-- {self.name}: {edge} -->" for edge in ("begin", "end"))
        before, rest = text.split(begin)
        _, after = rest.split(end)
        return f"{before}{begin}\n{self.table()}{end}{after}"


def main() -> int:
    """Write or check the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    status = 0
    for place in PLACES:
        text = place.page.read_text()
        renewed = place.renewed(text)
        if check and renewed != text:
            print(f"{place.page.name} does not hold the records: run benchmarks/tables.py")
            status = 1
        elif not check:
            place.page.write_text(renewed)
    return status


def measured() -> str:
    """Markdown of every recorded whole iteration, GPUs first."""
    files = sorted(RESULTS.glob("*.json"), key=lambda path: (path.stem == "cpu", path.stem))
    parts = []
    for path in files:
        for section, record in sorted(json.loads(path.read_text()).items()):
            if section.startswith("step "):
                parts.append(step_table(section, record))
    return "\n".join(parts)


def launches() -> str:
    """Markdown of the counted launches and bytes of an iteration at 256 x 256, batch 1."""
    rows = json.loads((RESULTS / "launches.json").read_text())["256 batch 1"]["rows"]
    lines = ["| an iteration | launches | GB |", "|---|---|---|"]
    for name, row in rows.items():
        counted = row if "groups" in row else None
        groups = list(row.values()) if counted is None else [counted]
        number, moved = (sum(g[key] for g in groups) for key in ("launches", "gigabytes"))
        lines.append(f"| {name} | {number:,} | {moved:.2f} |")
    return "\n".join(lines) + "\n"


PLACES = (
    Place(ROOT / "README.md", "measured", measured),
    Place(ROOT / "docs" / "speed.md", "launches", launches),
    Place(ROOT / "docs" / "speed.md", "goals", lambda: goals.table(RESULTS)),
)

if __name__ == "__main__":
    sys.exit(main())
