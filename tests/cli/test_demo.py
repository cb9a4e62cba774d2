# SPDX-License-Identifier: MIT
"""demo: its settings are train's, its gate can fail, and it leaves what it promises.

That the full demo passes its gate is what `make demo` shows; here it runs for a few steps.
"""

import dataclasses
import json

import pytest

from cyclegan_fast.cli.demo import DemoOptions, judge, make_room, settings
from cyclegan_fast.cli.train import read_options
from cyclegan_fast.report.evaluation import Direction
from cyclegan_fast.training.config import TrainConfig


def measured(psnr=20.0, swd=0.02, match_psnr=15.0, match_swd=0.06):
    good = {"psnr": {"colour match": 15.0, "this run": 20.0}}
    good["patch_swd"] = {"colour match": 0.06, "this run": 0.02}
    table = {"psnr": {"colour match": match_psnr, "this run": psnr}}
    table["patch_swd"] = {"colour match": match_swd, "this run": swd}
    return [Direction("summer → winter", good), Direction("winter → summer", table)]


def test_the_gate():
    assert judge(measured())["passed"]
    for change, said in (
        ({"psnr": 16.9}, "PSNR 16.90 dB is below 17"),
        ({"swd": 0.051}, "patch-SWD 0.051 is above 0.05"),
        ({"match_psnr": 20.5}, "PSNR no better"),
        ({"match_swd": 0.01}, "patch-SWD no better"),
        ({"psnr": float("nan")}, "PSNR nan"),
    ):
        verdict = judge(measured(**change))
        assert verdict["passed"] is False
        assert any(said in line and "winter → summer" in line for line in verdict["lines"])


def test_its_settings_can_be_typed_into_train(tmp_path):
    """No feature that only the demo can use: the same options through train's parser."""
    config = settings(DemoOptions(), tmp_path, 200)
    line = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(TrainConfig(), field.name):
            line += [f"--{field.name}", str(value)]
    assert read_options(line)[0].training == config


@pytest.mark.parametrize("steps", [1, 199, 200, 201, 1000, 1300])
def test_it_trains_as_many_steps_as_were_asked_for(tmp_path, steps):
    assert settings(DemoOptions(steps=steps), tmp_path, 200).total_steps(200) == steps


def test_a_short_demo_fails_its_gate_and_leaves_everything(tmp_path, run):
    out = tmp_path / "runs" / "demo"
    done = run("demo", "--out", out, "--steps", 4, "--device", "cpu")
    assert done.status == 1, done.err
    for said in ("colour match", "input as is", "floor", "FAIL", "summer → winter", "report.html"):
        assert said in done.out
    assert "next     cyclegan-fast train --dataroot YOUR_FOLDER" in done.out
    report = json.loads((out / "report.json").read_text())
    assert report["verdict"]["passed"] is False
    assert {line["metric"] for line in report["quality"]} == {"psnr", "ssim", "patch_swd"}
    for line in report["quality"]:
        assert {"input as is", "colour match", "this run"} <= set(line["values"])
    for name in ("run.json", "losses.csv", "curves.png", "samples/latest.png", "config.yaml"):
        assert (out / name).stat().st_size > 100
    assert len(list((out / "seasons" / "trainA").iterdir())) == 400

    make_room(out)
    assert not out.exists()


@pytest.mark.parametrize("option", [["--steps", 0], ["--seed", -1], ["--threads", -1]])
def test_wrong_values(tmp_path, run, option):
    done = run("demo", "--out", tmp_path / "x", *option)
    assert done.status == 2 and "or more" in done.err


def test_somebody_elses_folder_is_left_alone(tmp_path, run):
    (tmp_path / "thesis.txt").write_text("mine")
    done = run("demo", "--out", tmp_path, "--steps", 2)
    assert done.status == 2 and "holds no demo" in done.err
    assert (tmp_path / "thesis.txt").read_text() == "mine"
