# SPDX-License-Identifier: MIT
"""The GPU report's bookkeeping: what fails, is cut short, is begun again; its record and pages."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_report  # noqa: E402
import harness  # noqa: E402
import records  # noqa: E402
import report_pages  # noqa: E402
import tables  # noqa: E402
from report_run import Runner  # noqa: E402
from report_units import DECIDING, PARTS, Request, Unit, units  # noqa: E402

from cyclegan_fast.benchmark import pages, ratios  # noqa: E402

RESULTS = (ROOT / "benchmarks" / "results").glob("*.json")
GPU_RECORDS = sorted(path for path in RESULTS if '"profile 256 batch 1"' in path.read_text())

GOOD = "print('done')"
BAD = "raise ValueError('the reason')"
CHOSEN = "--contender"
SLOW = "import time; time.sleep(60)"


@pytest.fixture
def report(tmp_path):
    return make(tmp_path / "gpu.json")


def make(path: Path, tree: str = "tree") -> gpu_report.Report:
    return gpu_report.Report(path, Runner([sys.executable], {}), tree, {"gpu": "none"})


def unit(name: str, code: str, **options) -> Unit:
    return Unit("ops", name, ["-c", code], least=0.5, **options)


def run(report: gpu_report.Report, units: list[Unit], seconds: float = 30, again: bool = False):
    report.run(units, time.monotonic() + seconds, seconds, again=again)
    content = json.loads(report.path.read_text())["report"]["units"]
    return {name.removeprefix("ops: "): entry for name, entry in content.items()}


def test_a_unit_that_fails_keeps_its_reason_and_the_rest_goes_on(report):
    entries = run(report, [unit("a", GOOD), unit("b", BAD), unit("c", GOOD)])
    assert [entries[name]["status"] for name in "abc"] == ["passed", "failed", "passed"]
    assert "the reason" in entries["b"]["error"]
    assert report.status() == gpu_report.FAILED
    assert all({"commit", "tree", "date", "seconds"} <= set(entry) for entry in entries.values())


def test_what_is_cut_short_is_stopped_and_told_as_left(report):
    began = time.monotonic()
    entries = run(report, [unit("a", GOOD), unit("b", SLOW), unit("c", GOOD)], seconds=3)
    assert time.monotonic() - began < 20
    assert set(entries) == {"a", "b"} and entries["a"]["status"] == "passed"
    assert entries["b"]["status"] in ("cut short", "failed")
    assert report.status() in (gpu_report.LEFT, gpu_report.FAILED)


def test_a_unit_that_fits_no_part_fails(report):
    entries = run(report, [unit("a", SLOW)], seconds=1.5)
    assert entries["a"]["status"] == "failed"
    assert "longer than a part may" in entries["a"]["error"]


def test_a_restart_does_what_is_left_first_and_then_what_failed(report, tmp_path, capsys):
    log = tmp_path / "log"
    note = f"open({str(log)!r}, 'a').write({{!r}}); "
    units = [unit(name, note.format(name) + GOOD) for name in "abc"]
    units.insert(1, unit("x", note.format("x") + BAD))
    run(report, units[:2])
    again = make(report.path)
    run(again, units)
    assert log.read_text() == "ax" + "bcx"
    assert "1 of 4 units were done before" in capsys.readouterr().out
    run(make(report.path), units[2:], again=True)
    assert log.read_text() == "ax" + "bcx" + "bc"
    run(make(report.path, tree="other sources"), units[:1])
    assert log.read_text() == "ax" + "bcx" + "bc" + "a"


def test_a_unit_is_spared_by_one_that_did_its_work_and_not_by_one_that_failed(report, tmp_path):
    log = tmp_path / "log"
    note = f"open({str(log)!r}, 'a').write({{!r}}); "
    units = [unit("a", note.format("a") + GOOD), unit("b", note.format("b") + BAD)]
    units += [unit(name, note.format(name) + GOOD, spared_by=by) for name, by in ("ya", "zb")]
    entries = run(report, units)
    assert log.read_text() == "abz" and set(entries) == {"a", "b", "z"}
    run(make(report.path), units)
    assert log.read_text() == "abz" + "b"


def test_what_has_no_time_left_keeps_no_shorter_unit_from_running(report):
    long = Unit("ops", "long", ["-c", GOOD], least=1000)
    assert set(run(report, [long, unit("short", GOOD)])) == {"short"}
    assert report.status() == gpu_report.LEFT


def fake(names, **options):
    """What the report asks for where a GPU has these contenders."""
    given = {"device": "cuda", "rehearse": False, "upstream": None, "dataroot": None}
    return Request(**given | options, runs=Path("runs"), ask=lambda _: json.dumps(names))


def test_deciding_contenders_are_timed_in_turns_first():
    others = ["plain fp32, TF32 off", "torch.compile", "ours bf16, eager"]
    found = units("step", fake([*others, *DECIDING], upstream=Path("checkout")))
    turns, rest = found[:4], found[4:]
    assert [u.name for u in turns] == [
        f"{size} batch {batch}, in turns" for size in (256, 512) for batch in (1, 8)
    ]
    for one in turns:
        chosen = [b for a, b in zip(one.arguments, one.arguments[1:], strict=False) if a == CHOSEN]
        assert chosen == list(DECIDING) and "--upstream" in one.arguments
        size, _, batch = one.name.split(",")[0].split()
        assert one.arguments[1:5] == ["--size", size, "--batch", batch]
        assert one.least <= 200  # a part has 460 s
    spared = {u.name: u.spared_by for u in rest if CHOSEN in u.arguments}
    assert spared == {
        f"batch {batch}, {name}": f"256 batch {batch}, in turns" if name in DECIDING else None
        for name in (*others, *DECIDING)
        for batch in (1, 8)
    }
    assert len({u.name for u in found}) == len(found)


def test_without_a_checkout_of_upstream_the_others_take_turns():
    first, *_ = units("step", fake(list(DECIDING[:-1])))
    assert first.arguments.count(CHOSEN) == 4 and "--upstream" not in first.arguments


def test_a_row_timed_alone_does_not_replace_one_timed_beside_others(tmp_path, monkeypatch):
    path = tmp_path / "cpu.json"
    monkeypatch.setattr(harness, "file_for", lambda device: path)

    def merged(*rows):
        rows = [{"contender": name, "beside": beside, "v": v} for name, beside, v in rows]
        harness.merge("step", "cpu", rows, key="contender", rank="beside")
        return {r["contender"]: r["v"] for r in json.loads(path.read_text())["step"]["rows"]}

    assert merged(("a", 1, 1), ("b", 1, 1)) == {"a": 1, "b": 1}
    assert merged(("a", 0, 2)) == {"a": 1, "b": 1}
    assert merged(("c", 0, 2)) == {"a": 1, "b": 1, "c": 2}
    assert merged(("a", 1, 3), ("c", 0, 3)) == {"a": 3, "b": 1, "c": 3}


def test_a_tool_that_is_missing_is_said_to_be(report):
    entries = run(report, [unit("a", GOOD, tool=None)])
    assert entries["a"]["status"] == "not found" and report.status() == 0


def test_tests_are_counted(report, tmp_path):
    file = tmp_path / "test_small.py"
    file.write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('x', [1, 2])\n"
        "def test_good(x): pass\n"
        "def test_bad(): assert False, 'no'\n"
        "def test_skipped(): pytest.skip('not here')\n"
    )
    options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    (entry,) = run(report, [Unit("ops", "a", [*options, str(file)], tests=True)]).values()
    tests = entry["tests"]
    assert (tests["passed"], tests["failed"], tests["skipped"]) == (2, 1, 1)
    assert tests["functions"] == ["test_bad", "test_good"]
    assert tests["failures"][0].startswith("test_bad: ")
    none = Unit("ops", "b", [*options, str(file), "-k", "nothing"], tests=True)
    assert run(report, [none])["b"]["status"] == "no tests"


def test_a_record_is_changed_whole_or_not_at_all(tmp_path):
    path = tmp_path / "record.json"
    with records.open_record(path) as content:
        content["kept"] = 1
    with pytest.raises(KeyboardInterrupt), records.open_record(path) as content:
        content["lost"] = 2
        raise KeyboardInterrupt
    assert json.loads(path.read_text()) == {"kept": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("record", GPU_RECORDS, ids=lambda path: path.stem)
def test_pages_of_a_record_hold_its_figures(record, tmp_path):
    copy = tmp_path / record.name
    copy.write_text(record.read_text())
    page, drawing = report_pages.write(copy)
    text, content = page.read_text(), json.loads(record.read_text())
    for section, entry in content.items():
        if section.startswith("step "):
            for row in entry["rows"]:
                assert row["contender"] in text
                assert f"{row['milliseconds']['median']:.2f}" in text
        if section.startswith("profile "):
            for kind, its in entry["rows"]["kinds"].items():
                assert f"| {kind} | {its['launches']:.0f} | {its['microseconds']:.0f} |" in text
    for section, _ in report_pages._ops(content):
        assert f"## {section}\n" in text
    assert drawing.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("record", GPU_RECORDS, ids=lambda path: path.stem)
def test_committed_records_show_ratios_only_where_the_baseline_is_upstreams(record):
    content = json.loads(record.read_text())
    page, readme = report_pages.markdown(record.stem, content), tables.measured()
    for section, entry in content.items():
        if not section.startswith("step "):
            continue
        table = pages.step_table(section, entry)
        assert table in page and table in readme
        doubt = ratios.why_no_ratio(entry["rows"])
        assert ("x |" in table) == (doubt is None) and (doubt or "") in table


def test_what_the_baseline_of_an_h100_missed_is_told():
    (record,) = (path for path in GPU_RECORDS if path.stem == "h100-80gb-hbm3")
    rows = json.loads(record.read_text())["step 256 batch 1"]["rows"]
    times = {row["contender"]: row["milliseconds"]["median"] for row in rows}
    ratio = times[ratios.AS_SHIPPED["cuda"]] / times[ratios.UPSTREAM]
    doubt = ratios.why_no_ratio(rows)
    assert (doubt is None) == (abs(ratio - 1) <= 0.05)
    assert doubt is None or f"takes {ratio:.2f} times upstream's own" in doubt


def test_a_page_holds_kernels_that_move_memory_against_a_copy(tmp_path):
    def row(ours, copy, **others):
        microseconds = {"ours": ours, report_pages.COPY: copy} | others
        told = {"case": "c", "direction": "forward", "bytes": 1, "gb_per_s": 1.0, "x_copy": 1.0}
        return told | {"microseconds": microseconds}

    rows = [row(30.0, 20.0, eager=90.0), row(7.0, 5.0, eager=14.0), row(50.0, 20.0)]
    machine = json.loads(GPU_RECORDS[0].read_text())["step 256 batch 1"]["machine"]
    section = {"machine": machine, "rows": rows}
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"l1_loss 256 batch 1": section}))
    page, *_ = report_pages.write(record)
    summary = "| l1_loss 256 batch 1 | 3 | 1.50 - 2.50 | 2.00 | 2.00 - 3.00 | - |"
    assert summary in page.read_text()


def test_a_page_says_what_failed(report):
    run(report, [unit("a", BAD)])
    (page,) = report_pages.write(report.path)
    assert "### ops: a" in page.read_text() and "the reason" in page.read_text()


def test_parts_and_commit_of_a_tree_without_git(tmp_path, monkeypatch):
    assert PARTS == ("tests", "step", "ops", "train")
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setenv(records.COMMIT_VARIABLE, "abc")
    assert records.commit() == "abc"
