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

from records import ROOT

from cyclegan_fast.benchmark.pages import step_table

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


if __name__ == "__main__":
    sys.exit(main())
