# SPDX-License-Identifier: MIT
"""benchmark: from options to table, record and drawing; nothing is timed whose losses differ."""

import dataclasses
import json
import sys

import pytest
import torch

from cyclegan_fast.benchmark import contenders, kernels, measure, pages, timing, upstream
from cyclegan_fast.benchmark.contenders import Case, Contender
from cyclegan_fast.benchmark.plain import PlainIteration, Setup
from cyclegan_fast.benchmark.ratios import AS_SHIPPED, UPSTREAM, why_no_ratio

TINY = ["--size", 32, "--rounds", 1, "--warmup", 1, "--device", "cpu"]
CASE = Case("cpu", 32, 1, rounds=1, warmup=1)


# A checkout of upstream as far as it is asked for, with the plain iteration for its own code.
CHECKOUT = {
    "__init__.py": "",
    "networks.py": "def init_net(net):\n    return net\n",
    "cycle_gan_model.py": """
import torch
from cyclegan_fast.benchmark.plain import PlainIteration, Setup

class CycleGANModel:
    model_names = ["G_A", "G_B", "D_A", "D_B"]

    def __init__(self, options):
        assert options.isTrain and options.netG == "resnet_9blocks"
        self.plain = PlainIteration(Setup(), *torch.zeros(2, 1, 3, 32, 32))
        for name in self.model_names:
            setattr(self, f"net{name}", getattr(self.plain, name.lower()))

    def set_input(self, pictures):
        self.plain.real_a, self.plain.real_b = pictures["A"], pictures["B"]

    def optimize_parameters(self):
        self.plain()
        self.loss_G = self.plain.loss_g
        self.loss_D_A, self.loss_D_B = self.plain.loss_d_a, self.plain.loss_d_b
""",
}


@pytest.fixture
def checkout(tmp_path):
    """A folder to be given as --upstream; what it brings into Python is taken out again."""
    folder = tmp_path / "upstream"
    (folder / "models").mkdir(parents=True)
    for name, text in CHECKOUT.items():
        (folder / "models" / name).write_text(text)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("0123abc\n")
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]


@pytest.fixture
def one_peer(monkeypatch):
    """The eager peer as shipped alone: the others take their time and show the same."""
    monkeypatch.setitem(contenders.EAGER, "cpu", {AS_SHIPPED["cpu"]: Setup()})


def test_the_command_to_its_end(tmp_path, run, one_peer, checkout):
    done = run("benchmark", *TINY, "-o", tmp_path / "out", "--upstream", checkout)
    assert done.status == 0, done.err
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    (section,) = record
    assert section == "step 32 batch 1"
    assert {"date", "commit", "torch", "processor", "threads"} <= set(record[section]["machine"])
    assert record[section]["failed"] == {}
    rows = {row["contender"]: row for row in record[section]["rows"]}
    assert set(rows) == {UPSTREAM, "plain fp32", "ours fp32", "ours bf16"}
    assert record[section]["upstream_commit"] == "0123abc+unverified"
    for row in rows.values():
        assert 0 < row["milliseconds"]["min"] <= row["milliseconds"]["median"]
        assert row["images_per_s"] == pytest.approx(1e3 / row["milliseconds"]["median"], abs=0.01)
        reached = measure.FLOP_AT_256 / 64 / row["milliseconds"]["median"] / 1e9
        assert row["tflop_per_s"] == pytest.approx(reached, abs=0.01)
        share = reached / row["product_tflop_per_s"]
        assert row["share_of_floor"] == pytest.approx(share, rel=0.2, abs=0.01)
        # A CPU counts neither.
        assert row["launches"] is None and row["peak_memory_mib"] is None
    assert rows["ours fp32"]["served"] and not rows["plain fp32"]["served"]
    assert ("No ratios: " in done.out) == (why_no_ratio(rows.values()) is not None)
    for name, row in rows.items():
        assert name in done.out and f"{row['milliseconds']['median']:.2f}" in done.out
    assert (tmp_path / "out" / "benchmark.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--size", 30], "--size must be 32 or more, got 30"),
        (["--size", 256, 34], "--size must be multiples of 4, got 256 34"),
        (["--batch", 0], "--batch must be 1 or more, got 0"),
        (["--rounds", 0], "--rounds must be 1 or more"),
        (["--warmup", 0], "--warmup must be 1 or more"),
        (["--against", "everything"], "everything"),
        (["--upstream", "."], "must be a checkout of pytorch-CycleGAN-and-pix2pix"),
        (["--out", __file__], "must be a folder, and is a file"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_timed(tmp_path, run, options, expected):
    done = run("benchmark", "-o", tmp_path / "out", *options)
    assert done.status == 2
    assert expected in " ".join((done.out + done.err).split())
    assert not (tmp_path / "out").exists()


def iteration(**_options):
    return PlainIteration(Setup(), *CASE.images())


class Deviating:
    """The plain iteration, whose discriminator's loss is told too high."""

    def __init__(self):
        self.plain = iteration()

    def __call__(self):
        self.plain()

    def losses(self):
        losses = self.plain.losses()
        return losses | {"D_A": losses["D_A"] * 1.2}


def test_a_peer_whose_losses_differ_is_not_timed_and_the_rest_is(capsys):
    def missing():
        raise RuntimeError("no compiler\nand more")

    found = {
        "deviating": Contender(Deviating, lambda _: Deviating(), "fp32"),
        "missing": Contender(missing, lambda _: missing(), "fp32"),
        "plain": Contender(iteration, lambda _: iteration(), "fp32"),
    }
    rows, failed = measure.measure(found, CASE)
    assert [row["contender"] for row in rows] == ["plain"]
    assert "loss D_A of deviating" in failed["deviating"] and "not timed" in failed["deviating"]
    assert failed["missing"] == "RuntimeError: no compiler"
    assert "missing: does not run here" in capsys.readouterr().err


def test_ours_is_judged_by_one_picture_where_the_plain_iteration_does_not_fit():
    judged = []

    def twin(plain):
        judged.append(len(plain.real_a))
        if judged[-1] > 1:
            raise torch.OutOfMemoryError("no room")
        return PlainIteration(Setup(), plain.real_a, plain.real_b)

    two = dataclasses.replace(CASE, batch=2)
    (found,), failed = measure.measure({"ours": Contender(iteration, twin, "fp32")}, two)
    assert judged == [2, 1] and found["judged_batch"] == 1 and not failed
    with pytest.raises(ValueError, match="loss D_A of ours is"):
        deviating = Contender(Deviating, lambda p: twin(p) and Deviating(), "fp32")
        measure.measure({"ours": deviating}, two)


def test_a_twin_takes_the_pictures_that_the_plain_iteration_has():
    case = dataclasses.replace(CASE, batch=2)
    plain = iteration()
    for name, contender in contenders.contenders(case, ("eager",)).items():
        twin = contender.twin(plain)
        taken = twin.batch["A"] if name.startswith("ours") else twin.real_a
        assert torch.equal(taken, plain.real_a), name


def test_ours_must_run():
    found = {"ours": Contender(Deviating, lambda _: Deviating(), "fp32")}
    with pytest.raises(ValueError, match="loss D_A of ours is .*; not timed"):
        measure.measure(found, CASE)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_contenders_are_those_asked_for(device, tmp_path):
    def names(*against, checkout=None):
        case = Case(device, 256, 1, checkout=checkout)
        return list(contenders.contenders(case, against))

    ours = list(contenders.OURS[device])
    assert names() == ours
    assert names("eager") == [*contenders.EAGER[device], *ours]
    both = [*contenders.EAGER[device], *contenders.COMPILE[device], *ours]
    assert names("compile", "eager") == both
    assert names(checkout=tmp_path) == [UPSTREAM, *ours]
    assert AS_SHIPPED[device] in both


def row(name, median):
    milliseconds = {"median": median, "min": median, "max": median}
    told = {"contender": name, "milliseconds": milliseconds, "tflop_per_s": 1.0}
    return told | {"peak_memory_mib": 10, "images_per_s": 2.0}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ratios_are_shown_only_where_the_baseline_is_upstreams(device):
    machine = {"processor": "p", "threads": 1, "torch": "t", "commit": "c", "date": "2026-01-01"}
    for plain, doubted in ((104.0, False), (96.0, False), (106.0, True), (94.0, True)):
        rows = [row(UPSTREAM, 100.0), row(AS_SHIPPED[device], plain), row("ours", 50.0)]
        doubt = why_no_ratio(rows)
        assert (doubt is not None) == doubted
        record = {"machine": machine, "rows": rows}
        table = pages.step_table("step 32 batch 1", record)
        assert ("2.00x" in table) != doubted
        assert not doubted or table.endswith(f" |\n\n{doubt}\n")
    assert why_no_ratio(rows[1:]) is None and why_no_ratio(rows[::2]) is None


def test_a_table_tells_later_columns_only_when_asked():
    record = {
        "machine": {"gpu": "G", "torch": "t", "commit": "c", "date": "2026-01-01"},
        "rows": [row("plain", 10.0), row("ours", 5.0) | {"launches": 7, "share_of_floor": 0.5}],
    }
    short, full = (pages.step_table("step 32 batch 1", record, full=f) for f in (False, True))
    assert "| **ours** | 5.00 | 1.00x | 1.0 | 10 |\n" in short
    assert "| **ours** | 5.00 | 1.00x | 1.0 | 10 | 2.0 | 0.5 | 7 |\n" in full
    assert "| plain | 10.00 | 2.00x | 1.0 | 10 | 2.0 | - | - |\n" in full


def test_a_table_tells_rows_that_were_timed_apart():
    machine = {"gpu": "G", "torch": "t", "commit": "c", "date": "2026-01-01"}
    rows = [row("plain", 10.0) | {"beside": 1}, row("ours", 5.0) | {"beside": 1}]
    record = {"machine": machine, "rows": [*rows, row("other", 7.0) | {"beside": 0}]}
    table = pages.step_table("step 32 batch 1", record)
    assert "| other (timed apart) | 7.00 |" in table
    assert "| plain | 10.00 |" in table and "| **ours** | 5.00 |" in table


def test_a_product_and_a_copy_are_measured():
    assert timing.product_tflop_per_s("cpu", "fp32") > 0
    assert timing.copy_gb_per_s("cpu") > 0


def test_a_folder_that_is_no_upstream_says_what_is_missing(tmp_path):
    assert "models/cycle_gan_model.py" in upstream.why_not(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cycle_gan_model.py").touch()
    assert upstream.why_not(tmp_path) is None


def test_what_runs_on_a_gpu_is_counted_per_call(monkeypatch):
    told = {"a": (2.0, 5.0), "b": (1.4, 3.0)}
    monkeypatch.setattr(kernels, "profiled", lambda iteration, calls: told)
    assert kernels.launches(lambda: None) == 3
    told.clear()
    assert kernels.launches(lambda: None) is None
