# SPDX-License-Identifier: MIT
"""The table of goals: values of the records alone, the gap to each, and what no record says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import goals  # noqa: E402
import tables  # noqa: E402

MACHINE = {"gpu": "NVIDIA G", "commit": "c" * 40, "date": "2026-01-02T03:04:05"}
BY_WORDS = {goal.words: goal for goal in goals.GOALS}


def row(name, median, memory=100):
    return {"contender": name, "milliseconds": {"median": median}, "peak_memory_mib": memory}


def step(*rows, machine=MACHINE):
    return {"machine": machine, "rows": list(rows)}


@pytest.fixture
def lines(tmp_path):
    """Content of a record -> cells of the table's rows by their words."""

    def made(content):
        (tmp_path / "g.json").write_text(json.dumps(content))
        cells = [line.strip("| ").split(" | ") for line in goals.table(tmp_path).splitlines()]
        return {words: rest for words, *rest in cells[2:]}

    return made


def test_without_a_record_every_goal_says_so(lines):
    found = lines({})
    assert set(found) == set(BY_WORDS)
    assert all(cells[1:] == ["no record", "-", "-"] for cells in found.values())


def test_values_gaps_and_provenance(lines):
    ours = row("ours bf16, CUDA graph", 6.2, 40)
    peers = row("torch.compile", 9.0), row("torch.compile forced NHWC", 7.44)
    shipped = row("plain as shipped (TF32)", 24.8, 120), row("upstream, unmodified", 25.0, 100)
    found = lines({"step 256 batch 1": step(ours, *peers, *shipped)})
    of = "G, cccccccccccc, 2026-01-02"
    assert found["ms, batch 1"] == ["at most 6.2", "6.20", "reached", of]
    assert found["ms, batch 1, later"] == ["at most 4", "6.20", "55% too much", of]
    assert found["x upstream's speed"] == ["at least 4.5", "4.00", "11% too little", of]
    assert found["x torch.compile, batch 1"][1:3] == ["1.20", "8% too little"]
    assert found["x upstream's memory, batch 1"][1:3] == ["0.40", "reached"]
    assert found["ms, batch 8"][1] == "no record"
    assert found["x upstream's speed, CPU"][1] == "no record"


def test_no_ratio_where_the_baseline_is_not_upstreams_or_is_of_another_section(lines):
    ours = row("ours bf16, CUDA graph", 5.0)
    shipped = row("plain as shipped (TF32)", 20.0)
    found = lines({"step 256 batch 1": step(ours, shipped, row("upstream, unmodified", 25.0))})
    assert found["ms, batch 1"][1] == "5.00"
    for words in ("x upstream's speed", "x upstream's memory, batch 1"):
        assert found[words][1].startswith("No ratios: ") and found[words][2] == "-"
    apart = {"step 256 batch 1": step(shipped), "step 256 batch 1, two branches": step(ours)}
    assert lines(apart)["x upstream's speed"][1] == "no record"
    alone = lines({"step 256 batch 1": step(row("ours bf16, CUDA graph", 4.0), shipped)})
    assert alone["x upstream's speed"][1:3] == [
        "5.00 (of the plain iteration: upstream not measured beside)",
        "unproven",
    ]


def test_training_and_trunk(lines):
    def layer(case, direction, **shares):
        return {"case": case, "direction": direction, "share_of_product": shares}

    rows = [
        layer("trunk, 2 of 64x64, bfloat16", "forward", library=0.5, hopper=0.8),
        layer("trunk, 2 of 64x64, bfloat16", "gradient_of_input", library=0.6),
        layer("trunk, 2 of 64x64, float32", "forward", library=0.1),
        layer("trunk, 4 of 64x64, bfloat16", "forward", library=0.1),
    ]
    rows[1]["share_of_product"]["torch.compile"] = 0.9
    seasons, data = (
        step() | {"rows": {"data": data, "iterations_per_s": rate}}
        for data, rate in (("seasons", 99.0), (goals.DATA, 42.5))
    )
    content = {"train 256 batch 1": seasons, f"train 256 batch 1, {goals.DATA}": data}
    found = lines(content | {"convolutions 256 batch 1": step(*rows)})
    assert found["x a large product's rate, trunk, two images"][1:3] == ["0.60", "20% too little"]
    assert found[f"iterations/s of a training on {goals.DATA}"][:3] == ["-", "42.50", "-"]


def test_committed_records_and_their_table():
    text = goals.table(tables.RESULTS)
    for place in tables.PLACES:
        page = place.page.read_text()
        assert place.renewed(page) == page, place.name
    for path in tables.RESULTS.glob("*.json"):
        content = json.loads(path.read_text())
        entry = content.get("step 256 batch 8")
        best = [r for r in entry["rows"] if r["contender"] in goals.OURS] if entry else []
        for its in best:
            assert f"| ms, batch 8 | at most 40 | {its['milliseconds']['median']:.2f} |" in text
            assert entry["machine"]["commit"][:12] in text
