# SPDX-License-Identifier: MIT
"""train --plan: what it says, and that it leaves nothing behind."""

import pytest
import torch
from small import TINY

from cyclegan_fast.training import Trainer, memory


@pytest.fixture
def plan(domains, tmp_path, run):
    """Run train --plan with more options; no file and no folder may come of it."""

    def command(*more):
        place = ["--dataroot", domains, "--checkpoints_dir", tmp_path / "runs"]
        before = sorted(tmp_path.rglob("*"))
        done = run("train", *place, *TINY, "--plan", *more)
        assert sorted(tmp_path.rglob("*")) == before
        return done

    return command


def test_it_says_what_and_why_and_writes_nothing(plan):
    done = plan()
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    for said in (
        "chosen   batch 1: upstream's",
        "chosen   crop 32×32: asked for",
        "chosen   device cpu: asked for",
        "chosen   precision fp32: this is a CPU",
        "chosen   layout channels_last: convolutions",
        "chosen   passes at once: fake with identity",
        "chosen   graph off: a CUDA graph needs a GPU",
        "chosen   checkpoint off: the default",
        "chosen   pictures all on cpu",
        "memory   ",
        "time     ",
        "epoch    0:0",
    ):
        assert any(line.startswith(said) for line in lines), (said, done.out)
    measured = next(line for line in lines if line.startswith("time     "))
    assert "s a step" in measured and "measured, " in measured and "random pictures" in measured
    assert "note" not in done.out


def test_what_was_asked_for_is_named_so(plan):
    done = plan("--merge", "off", "--checkpoint", "blocks", "--batch_size", 2)
    assert done.status == 0, done.err
    for said in ("batch 2: asked", "checkpoint blocks: asked", "passes one by one: asked"):
        assert f"chosen   {said}" in done.out


def test_on_several_gpus_an_epoch_is_shared_and_buckets_are_there(plan):
    alone, two = plan("--batch_size", 2), plan("--batch_size", 2, "--gpus", 2)
    assert two.status == 0, two.err
    assert "for 2 steps, saves" in alone.out and "ranks" not in alone.out
    assert "for 1 step, the exchange of gradients, saves" in two.out
    assert "ranks    2 · global batch 4 (2 × 2) · lr_rule none: lr 0.0002" in two.out
    assert " of one rank on random pictures" in two.out
    memory = {
        name: dict(
            (part.rpartition(" ")[0].rpartition(" ")[0], part)
            for part in line.partition("predicted: ")[2].partition(";")[0].split(", ")
        )
        for name, done in (("alone", alone), ("two", two))
        for line in done.out.splitlines()
        if line.startswith("memory ")
    }
    bytes_of = memory["two"]["weights"].removeprefix("weights")
    assert memory["two"]["buckets"] == f"buckets{bytes_of}" and "buckets" not in memory["alone"]


def test_where_memory_does_not_suffice_it_says_what_would(plan, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 10**6)
    done = plan("--batch_size", 4)
    assert done.status == 0, done.err
    assert "; 1.0 MB there" in done.out and "more than there is" in done.out
    less = [line.split(" with --") for line in done.out.splitlines() if line.startswith("less")]
    assert [way for _, way in less] == ["checkpoint blocks", "precision bf16", "batch_size 2"]
    assert "time     not measured" in done.out and "epoch" not in done.out


def test_a_step_that_does_not_fit_after_all(plan, monkeypatch):
    def step(self, batch):
        raise torch.OutOfMemoryError("of the device")

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(memory, "predict", lambda *_, **__: "no reason")
    done = plan()
    assert done.status == 0, done.err
    assert "memory   not predicted: no reason" in done.out
    assert "time     not measured: a step did not fit" in done.out


def test_pictures_of_their_own_size(plan):
    done = plan("--preprocess", "none")
    assert done.status == 0, done.err
    assert "memory   not predicted: it follows the pictures" in done.out
    assert "time     not measured: it follows the pictures" in done.out


def test_a_run_says_it_too(domains, tmp_path, run, monkeypatch):
    monkeypatch.setattr("cyclegan_fast.cli.banner.available", lambda device: 10**5)
    place = ["--dataroot", domains, "--checkpoints_dir", tmp_path / "runs"]
    done = run("train", *place, *TINY, "--max_steps", 1, "--evaluate", 0)
    assert done.status == 0, done.err
    assert "predicted: weights " in done.out and "--plan says how much" in done.out


def test_what_a_device_has(monkeypatch):
    assert memory.available(torch.device("cpu")) is None or (
        10**6 < memory.available(torch.device("cpu")) < 10**15
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2)
    assert memory.available(torch.device("cuda")) == 5
