# SPDX-License-Identifier: MIT
"""A graph is not replayed once what it has fixed was changed; where that stays, a new one is."""

from __future__ import annotations

import json

import null_cuda
import pytest
import torch
from test_null_cuda import under

pytestmark = [
    pytest.mark.skipif(null_cuda.why_not() is not None, reason=str(null_cuda.why_not())),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there"),
]

STEPS = """
import json
import torch, under
from cyclegan_fast import backend
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.runtime import configured
from cyclegan_fast.training.trainer import Trainer

def policy(trainer, on):
    backend.use_backend("reference" if on else "auto")

def mode(trainer, on):
    trainer.networks.G_A.train(not on)

def frozen(trainer, on):
    next(trainer.networks.G_A.parameters()).requires_grad_(not on)

def graphs(change):
    config = TrainConfig(
        dataroot="unused", device="cuda", precision="fp32", netG="resnet_2blocks", ngf=8, ndf=8,
        load_size=32, crop_size=32, pool_size=2, merge="off", dropout=True, cuda_graph="on",
    )
    found = []
    with configured(config):
        trainer = Trainer(config)
        pictures = {side: torch.zeros(1, 3, 32, 32).pin_memory() for side in "AB"}
        for step in range(12):
            if step in (5, 10):
                change(trainer, step == 5)
            under.runtime.clear()
            trainer.step(pictures)
            work = under.runtime.work
            found += [[name for name in work if name.startswith("graph of")]]
    backend.use_backend("auto")
    return found

print(json.dumps({change.__name__: graphs(change) for change in (policy, mode, frozen)}))
"""


@pytest.fixture(scope="module")
def told():
    return json.loads(under(STEPS).splitlines()[-1])


@pytest.mark.parametrize("change", ["policy", "mode", "frozen"])
def test_what_a_graph_has_fixed_is_not_replayed_after_a_change(told, change):
    graphs = told[change]
    assert [len(found) for found in graphs] == [0] * 3 + [1] * 2 + [0] * 3 + [1] * 2 + [0] * 2
    assert graphs[3] == graphs[4] and graphs[8] == graphs[9]
    assert graphs[4] != graphs[9], "the new one holds other work"
