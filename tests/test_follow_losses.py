# SPDX-License-Identifier: MIT
"""The comparison of losses trains what it says, and tells a path that goes elsewhere."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import follow_losses  # noqa: E402

from cyclegan_fast.data import seasons  # noqa: E402
from cyclegan_fast.training.config import TrainConfig  # noqa: E402

TINY = {"netG": "resnet_2blocks", "ngf": 4, "ndf": 4, "load_size": 36, "crop_size": 32}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    data = seasons.write(tmp_path_factory.mktemp("data") / "seasons", size=40, n_train=12, n_test=1)
    return TrainConfig(dataroot=str(data), device="cpu", **TINY)


def test_the_fast_path_follows_and_another_loss_does_not(config):
    def run(**changes):
        return follow_losses.curves(dataclasses.replace(config, **changes), steps=10)

    plain = run(**follow_losses.PLAIN)
    assert plain.shape == (follow_losses.WINDOWS, len(follow_losses.LOSS_NAMES))
    np.testing.assert_allclose(run(**follow_losses.FAST["fast fp32"]), plain, rtol=0.1)
    assert np.abs(run(lambda_A=5.0) / plain - 1).max() > 0.3


def test_distances_are_in_spreads_of_the_seeds():
    plain = np.array([0.0, 1.0, 2.0])[:, None, None] + np.zeros((3, 2, 4))
    assert follow_losses.distances(plain, plain).max() == 0
    far = follow_losses.distances(plain, plain + 3)
    np.testing.assert_allclose(far, 1.5)
    plain[:, 0, 1] *= 3  # in one window the seeds are farther apart, and in one loss alone
    far = follow_losses.distances(plain, plain + 3)
    np.testing.assert_allclose(far, [[1.5, 0.75, 1.5, 1.5]] * 2)


def test_the_committed_record_says_that_the_fast_path_follows():
    """On vangogh2photo, 300 steps and three seeds each, in fp32 and in bf16."""
    record = json.loads(follow_losses.RECORD.read_text())
    assert record["data"] == "vangogh2photo" and record["steps"] >= 300
    assert record["losses"] == list(follow_losses.LOSS_NAMES)
    assert record["config"] == follow_losses.SMALL
    means = {name: np.array(values) for name, values in record["means"].items()}
    assert set(means) == {"plain fp32", *follow_losses.FAST}
    shape = (3, follow_losses.WINDOWS, len(follow_losses.LOSS_NAMES))
    for name, values in means.items():
        assert values.shape == shape and np.isfinite(values).all(), name
        assert len(np.unique(values, axis=0)) == 3, f"{name}: two seeds are one run"
    assert set(record["spreads"]) == set(follow_losses.FAST)
    for name, spreads in record["spreads"].items():
        far = follow_losses.distances(means["plain fp32"], means[name])
        np.testing.assert_allclose(spreads, far, atol=2e-3, err_msg=name)
        assert far.max() <= 1, name
        assert not np.array_equal(means[name], means["plain fp32"]), f"{name} is the plain run"
