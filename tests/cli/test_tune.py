# SPDX-License-Identifier: MIT
"""tune: what is measured, written and followed; an implementation that is wrong is never chosen."""

import json

import pytest
import torch

from cyclegan_fast import backend
from cyclegan_fast.benchmark import tuned_steps, tuning
from cyclegan_fast.benchmark.ours import OursIteration
from cyclegan_fast.benchmark.tuning import Case
from cyclegan_fast.cli.tune import TuneOptions, tune
from cyclegan_fast.errors import TableError
from cyclegan_fast.ops import _triton, reflect_conv2d
from cyclegan_fast.ops.reflect_conv2d import explain, measured, table
from cyclegan_fast.ops.reflect_conv2d.layers import DIRECTIONS, ON_LOAD, Layer
from cyclegan_fast.ops.reflect_conv2d.table import takes_norms

CPU = torch.device("cpu")
CASES = [
    Case("forward", (1, 16, 8, 8), (16, 16, 3, 3), 0, 1, "reflect", torch.float32, True),
    Case("gradient_of_input", (1, 4, 6, 6), (4, 4, 3, 3), 1, 2, "transposed", torch.float32, True),
    Case("gradient_of_weight", (1, 4, 6, 6), (4, 4, 4, 4), 1, 2, "zeros", torch.bfloat16, True),
    Case("gradient_of_weight", (1, 3, 9, 9), (16, 3, 7, 7), 3, 1, "reflect", torch.float32, True),
]
STEPS = tuned_steps.Steps({"the library": 2.0, "the fastest of each layer": 1.0}, frozenset())
needs_interpreter = pytest.mark.skipif(not _triton.INTERPRETED, reason="interpreted, on the CPU")


def test_a_step_names_all_of_its_convolutions():
    step = OursIteration("fp32", graph=False, images=tuple(torch.rand(2, 1, 3, 32, 32)))
    found = tuning.cases_of_a_step(step)
    assert len({(c.direction, c.x, c.weight, c.kind) for c in found}) == len(found)
    assert {c.direction for c in found} == set(DIRECTIONS)
    assert {c.kind for c in found} == {"reflect", "zeros", "transposed"}
    trunk = {c.x[0] for c in found if c.weight == (256, 256, 3, 3) and c.direction == "forward"}
    assert trunk == {1, 2}  # the generated picture and the one to be left alone; the one led back


@needs_interpreter
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} {case.direction}")
def test_every_implementation_that_serves_is_timed(case):
    found = tuning.measure(case, CPU, rounds=1)
    names = set(found.microseconds) | set(found.excluded)
    assert names == {"library", *table.LAUNCHED}
    assert {"library", "implicit"} <= set(found.microseconds)
    assert not any("differs" in reason for reason in found.excluded.values())
    assert found.fastest in found.microseconds and found.flops > 0


@needs_interpreter
def test_one_that_is_wrong_is_left_out(monkeypatch):
    right = tuning._by_launch

    def wrong(*arguments):
        work = right(*arguments)
        return lambda: tuple(made + 1 for made in work())

    monkeypatch.setattr(tuning, "_by_launch", wrong)
    found = tuning.measure(CASES[0], CPU, rounds=1)
    assert set(found.microseconds) == {"library"}
    assert "differs" in found.excluded["implicit"]
    assert any("left out" in line for line in tuning.lines([found]))


@needs_interpreter
def test_what_is_written_is_read_and_followed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "cases_of_a_step", lambda _step: CASES[:1])
    monkeypatch.setattr(tuned_steps, "measure", lambda *_: STEPS)
    file = tmp_path / "a" / "table.json"
    assert tune(TuneOptions(size=32, rounds=1, precision="fp32", out=file), "cpu") == 0
    assert "TFLOP/s" in capsys.readouterr().out
    content = json.loads(file.read_text())
    (row,) = content["layers"].values()
    row["fastest"] = "implicit"  # whatever was the fastest in an interpreter
    file.write_text(json.dumps(content))
    x, weight = torch.randn(1, 16, 8, 8), torch.randn(16, 16, 3, 3)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    # A second call adds to what is there.
    monkeypatch.setattr(tuning, "cases_of_a_step", lambda _step: CASES[1:2])
    tune(TuneOptions(size=32, rounds=1, precision="fp32", out=file), "cpu")
    layers = measured.read(file, CPU)
    assert len(layers) == 2 and layers[Layer(x, weight).key("forward")]["fastest"] == "implicit"
    monkeypatch.setenv(measured.ENVIRONMENT, str(file))
    monkeypatch.setattr(measured, "choice", measured._of_file)
    measured.forget()
    try:
        assert "forward: implicit: measured to be the fastest here" in explain(x, weight)
        with backend.record() as served:
            y = reflect_conv2d(x, weight, padding=0)
        assert served == {("reflect_conv2d", "triton"): 1}
        monkeypatch.setattr(measured, "choice", lambda _device: measured.nothing)
        torch.testing.assert_close(y, reflect_conv2d(x, weight, padding=0), rtol=1e-4, atol=1e-4)
    finally:
        measured.forget()


@pytest.mark.parametrize(
    ("fastest", "hopper"),
    [(way, False) for way in tuned_steps.WAYS[:-1]] + [(way, True) for way in tuned_steps.WAYS],
    ids=lambda value: getattr(value, "name", f"hopper {value}"),
)
def test_the_fastest_step_decides(fastest, hopper, monkeypatch):
    x, weight = torch.zeros(1, 16, 10, 10), torch.zeros(16, 16, 3, 3)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    layer = Layer(x, weight)
    monkeypatch.setattr(table, "why_not", lambda *_: None)
    monkeypatch.setattr(table, "why_not_loading", lambda _layer: None if hopper else "no")
    key = layer.key("forward")
    times = {"library": 2.0, "rows": 3.0, "implicit": 4.0}
    found = [tuning.Measured(key, times, 1, {})]
    chosen = []

    def make():
        """A step that asks what a walk asks."""
        return lambda: chosen.append((table.choose("forward", "auto", layer), takes_norms(layer)))

    def timed(contenders, _device, rounds):
        for run in contenders.values():
            run()
        return {name: {"median": 1e-3 * (1 + (name != fastest.name))} for name in contenders}

    monkeypatch.setattr(tuned_steps, "interleaved", timed)
    steps = tuned_steps.measure(found, make, CPU, 1)
    of_steps = [("library", None), ("library", None), ("library", "implicit")]
    of_steps += [("rows", None), ("rows", "implicit"), ("rows", "hopper")]
    assert chosen == of_steps[: len(of_steps) - (not hopper)]
    assert steps.fastest is fastest and fastest.name in next(iter(tuned_steps.lines(steps)))
    layers = tuned_steps.record(found, steps, {})["layers"]
    taken, loads = of_steps[tuned_steps.WAYS.index(fastest)]
    assert layers[key]["fastest"] == taken
    assert layers[layer.key(ON_LOAD)]["fastest"] == (loads or "library")


def test_the_fastest_of_our_kernels_is_the_librarys_where_none_serves():
    assert tuned_steps.OURS.fastest(tuning.Measured("a", {"library": 1.0}, 1, {})) == "library"


def test_measurements_of_another_set_up_do_not_count(tmp_path):
    file = tmp_path / "table.json"
    content = tuned_steps.record([], STEPS, measured.machine(CPU)) | {
        "layers": {"a": {"fastest": "rows"}}
    }
    file.write_text(json.dumps(content))
    assert measured.read(file, CPU)
    for other in ({"torch": "1.0"}, {"cyclegan_fast": "0.0"}, {"device": "NVIDIA H200"}):
        file.write_text(json.dumps(content | other))
        assert measured.read(file, CPU) == {}


UNKNOWN = '{"format": 1, "layers": {"a": {"fastest": "winograd"}}}'


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "layers": {"a": {}}}', "\0", UNKNOWN]
)
def test_a_file_that_is_none_is_named(text, tmp_path):
    file = tmp_path / "table.json"
    file.write_text(text)
    with pytest.raises(TableError, match=r"table\.json: .*cyclegan-fast tune"):
        measured.read(file, CPU)


def test_a_file_that_is_named_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv(measured.ENVIRONMENT, str(tmp_path / "typo.json"))
    measured.forget()
    try:
        with pytest.raises(TableError, match="typo.json"):
            measured._of_file(CPU)
    finally:
        measured.forget()


def test_a_home_that_cannot_be_looked_into_has_no_measurements(monkeypatch):
    def forbidden(_self):
        raise PermissionError("no")

    monkeypatch.delenv(measured.ENVIRONMENT, raising=False)
    monkeypatch.setattr(measured.Path, "exists", forbidden)
    measured.forget()
    try:
        assert measured._of_file(CPU) is measured.nothing
    finally:
        measured.forget()


def test_where_the_file_lies(monkeypatch, tmp_path):
    monkeypatch.delenv(measured.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert measured.path(CPU) == tmp_path / "cyclegan_fast" / "cpu.json"
    monkeypatch.setenv(measured.ENVIRONMENT, "off")
    assert measured.path(CPU) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_why(run):
    done = run("tune")
    assert done.status == 1 and "nothing to choose" in done.err


@pytest.mark.parametrize("arguments", [("--size", 30), ("--batch", 0), ("--rounds", 0)])
def test_wrong_options_are_named(run, arguments):
    done = run("tune", *arguments)
    assert done.status == 2 and arguments[0] in done.err
