# SPDX-License-Identifier: MIT
"""train: what it says, what it writes, how it stops and goes on."""

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from small import TINY, picture

from cyclegan_fast.io.weights import load_generator

COMMAND = [sys.executable, "-m", "cyclegan_fast", "train"]


def arguments(domains, tmp_path, *more):
    place = ["--dataroot", str(domains), "--checkpoints_dir", str(tmp_path / "runs")]
    return [*place, "--name", "run", *TINY, *map(str, more)]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_pictures_curves_figures_and_a_model(domains, tmp_path, run):
    done = run("train", *arguments(domains, tmp_path, "--max_steps", 6, "--evaluate", 2))
    assert done.status == 0, done.err
    folder = tmp_path / "runs" / "run"

    for said in (
        "trainA 4",
        "trainB 4",
        "samples: testA, testB",
        "chosen   precision fp32",
        "chosen   graph off: a CUDA graph needs a GPU, and the run is on cpu\n",
        "6 steps",
    ):
        assert said in done.out
    # What is captured here is no terminal: plain lines, nothing that moves.
    assert "\x1b" not in done.out and "\r" not in done.out
    last = next(
        row for row in done.out.splitlines() if row.startswith("train    6/6 · epoch 2 · G ")
    )
    assert "images/s" in last and "cycle " in last
    assert re.search(r" images/s · \d+% waiting · 0:00:00 left$", last)
    assert done.out.count("chosen   graph") == 1
    whole = re.search(r"^waiting  (\d+\.\d)% of 0:\d\d:\d\d for pictures$", done.out, re.M)
    losses = rows(folder / "losses.csv")
    assert [int(row["step"]) for row in losses] == [2, 4, 6]
    assert all(np.isfinite(float(value)) for row in losses for value in row.values())

    sheets = sorted(path.name for path in (folder / "samples").glob("step-*.png"))
    assert sheets == [f"step-{step:08d}.png" for step in (0, 4, 6)]
    with Image.open(folder / "samples" / sheets[-1]) as sheet:
        assert sheet.width > 8 * 32 and sheet.height > 2 * 32
    with Image.open(folder / "curves.png") as curves:
        assert np.asarray(curves.convert("L")).std() > 5

    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] and record["steps"] == 6
    assert record["starts"][-1]["data_wait"] == pytest.approx(float(whole[1]) / 100, abs=6e-4)
    assert record["data"]["pictures"] == {"A": 4, "B": 4}
    ops = {"instance_norm_act", "reflect_conv2d", "generator_loss", "lsgan_loss", "adam"}
    ops |= {"augment", "pool_exchange"}
    assert {op.removesuffix("_backward") for op in record["served"]} == ops
    report = json.loads((folder / "report.json").read_text())
    assert {line["metric"] for line in report["quality"]} == {"patch_swd"}
    assert all(set(line["values"]) >= {"this run", "floor"} for line in report["quality"])
    page = (folder / "report.html").read_text("utf-8")
    assert "A → B" in page and "<script" not in page

    for direction in ("AtoB", "BtoA"):
        _, info = load_generator(folder, direction)
        assert info.architecture.name == "resnet_2blocks" and info.direction == direction
    translated = run("translate", folder, domains / "testA", "-o", tmp_path / "out")
    assert translated.status == 0 and len(list((tmp_path / "out").iterdir())) == 2
    assert f"open     {folder / 'report.html'}" in done.out
    assert f"next     cyclegan-fast translate {folder}" in done.out


def test_no_recognised_op_is_served_by_the_reference(domains, tmp_path, run):
    """Of a default run on a machine where kernels were compiled."""
    from cyclegan_fast import _extension

    if not _extension.available():
        pytest.fail(f"the compiled kernels are not there: {_extension.why_not()}")
    assert (
        run("train", *arguments(domains, tmp_path, "--max_steps", 2, "--evaluate", 0)).status == 0
    )
    record = json.loads((tmp_path / "runs" / "run" / "run.json").read_text())
    for op, names in record["served"].items():
        assert set(names) == {"native"}, (op, names)


def test_a_resumed_run_is_the_run_that_was_not_stopped(domains, tmp_path, run):
    common = ["--save_latest_freq", 3, "--evaluate", 0, "--n_epochs", 1, "--n_epochs_decay", 2]
    whole = tmp_path / "whole"
    run("train", *arguments(domains, whole, *common))
    first = run("train", *arguments(domains, tmp_path, *common, "--max_steps", 5))
    assert first.status == 0
    place = ["--checkpoints_dir", tmp_path / "runs"]
    second = run("train", "--resume", *place, "--max_steps", 0, "--evaluate", 0)
    assert second.status == 0, second.err
    assert "resumed  at step 5 of 12" in second.out and "going on with" in second.out
    folders = [base / "runs" / "run" for base in (whole, tmp_path)]
    whole_state, resumed_state = (
        {path.name: load_file(path) for path in (folder / "step-00000012").glob("*.safetensors")}
        for folder in folders
    )
    assert set(whole_state) == set(resumed_state) and len(whole_state) > 5
    for part, tensors in whole_state.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, resumed_state[part][name]), (part, name)
    last = [rows(folder / "losses.csv")[-1] for folder in folders]
    assert last[0] == last[1] and int(last[0]["step"]) == 12
    starts = json.loads((folders[1] / "run.json").read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 5]


def test_resume_alone_takes_the_run_saved_last_and_its_options(domains, tmp_path, run):
    for name in ("older", "newer"):
        line = arguments(domains, tmp_path, "--max_steps", 2, "--evaluate", 0, "--lr", "1e-4")
        run("train", *[name if word == "run" else word for word in line])
        time.sleep(0.01)
    place = ["--checkpoints_dir", tmp_path / "runs"]
    done = run("train", "--resume", *place, "--max_steps", 4, "--evaluate", 0)
    assert done.status == 0, done.err
    assert f"going on with {tmp_path / 'runs' / 'newer'}" in done.out
    saved = yaml.safe_load((tmp_path / "runs" / "newer" / "config.yaml").read_text())
    assert saved["lr"] == 1e-4 and saved["ngf"] == 4
    assert json.loads((tmp_path / "runs" / "newer" / "run.json").read_text())["steps"] == 4


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}


def test_ctrl_c_saves_and_says_how_to_go_on(domains, tmp_path, run):
    line = arguments(domains, tmp_path, "--n_epochs", 9999, "--evaluate", 0)
    process = subprocess.Popen(
        [*COMMAND, *line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(),
    )  # fmt: skip
    losses = tmp_path / "runs" / "run" / "losses.csv"
    try:
        for _ in range(600):
            if losses.exists() and len(losses.read_text().splitlines()) > 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, out
    assert "Traceback" not in out
    resume = next(row for row in out.splitlines() if row.startswith("resume "))
    words = resume.split()[2:]
    saved = next((tmp_path / "runs" / "run").glob("step-*"))
    step = int(saved.name.removeprefix("step-"))
    assert step > 1
    again = run(*words, "--max_steps", step + 1, "--evaluate", 0)
    assert again.status == 0, again.err
    assert f"resumed  at step {step:,}" in again.out


def test_a_terminal_gets_a_bar_with_losses_speed_and_time_left(domains, tmp_path):
    line = arguments(domains, tmp_path, "--max_steps", 6, "--evaluate", 0)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *line], stdout=theirs, stderr=theirs, env={**environment(), "TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other side has closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown
    text = shown.decode("utf-8", "replace")
    assert "\x1b[" in text and "━" in text
    for part in ("6/6", "G ", "cycle ", "images/s", "% waiting", "left"):
        assert part in text
    assert not any(row.startswith("train    6/6 · epoch") for row in text.splitlines())


def test_samples_without_test_pictures_come_from_training(domains, tmp_path, run):
    for folder in ("testA", "testB"):
        for path in (domains / folder).iterdir():
            path.unlink()
        (domains / folder).rmdir()
    done = run("train", *arguments(domains, tmp_path, "--max_steps", 2))
    assert done.status == 0 and "samples: trainA, trainB" in done.out
    report = json.loads((tmp_path / "runs" / "run" / "report.json").read_text())
    assert not report["quality"] and "Nothing was measured" in report["verdict"]["lines"][0]


def test_direction_b_to_a_and_unequal_channels(tmp_path, run):
    root = tmp_path / "data"
    for folder, channels in (("trainA", 1), ("trainB", 3), ("testA", 1), ("testB", 3)):
        for index in range(2):
            picture(root / folder / f"{index}.png", 32, 32, channels, seed=index)
    more = ["--direction", "BtoA", "--input_nc", 3, "--output_nc", 1, "--lambda_identity", 0]
    done = run("train", *arguments(root, tmp_path, "--max_steps", 2, *more, "--evaluate", 2))
    assert done.status == 0, done.err
    _, info = load_generator(tmp_path / "runs" / "run", "AtoB")
    assert (info.architecture.input_nc, info.architecture.output_nc) == (1, 3)
    quality = json.loads((tmp_path / "runs" / "run" / "report.json").read_text())["quality"]
    assert [line["direction"] for line in quality] == ["B → A", "A → B"]


def test_bad_pictures_are_named_and_left_out(domains, tmp_path, run):
    (domains / "trainA" / "broken.png").write_bytes(b"not a picture")
    done = run("train", *arguments(domains, tmp_path, "--max_steps", 1, "--evaluate", 0))
    assert done.status == 0
    assert "skipped" in done.out and "broken.png" in done.out
    record = json.loads((tmp_path / "runs" / "run" / "run.json").read_text())
    assert "broken.png" in record["data"]["skipped"][0]
