# SPDX-License-Identifier: MIT
"""State-dict keys, their order and shapes against those that upstream's own networks print.

upstream_keys.json was written by running pytorch-CycleGAN-and-pix2pix at the commit it names.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cyclegan_fast import models

UPSTREAM = json.loads((Path(__file__).parent / "upstream_keys.json").read_text())["networks"]


def build(name: str):
    kind, *words = name.split()
    if "channels," in words:
        return models.define_G(1, 4, 16, kind)
    if kind.startswith(("resnet", "unet")):
        return models.define_G(3, 3, 64, kind, words[0], use_dropout=words[1] == "dropout=True")
    return models.define_D(3, 64, kind, int(words[0]), words[1])


@pytest.mark.parametrize("name", UPSTREAM)
def test_keys_shapes_and_order_are_upstreams(name):
    with torch.device("meta"):  # shapes alone
        net = build(name)
    ours = {key: list(tensor.shape) for key, tensor in net.state_dict().items()}
    theirs = UPSTREAM[name]["tensors"]
    assert list(ours) == list(theirs)
    assert ours == theirs
    assert sum(p.numel() for p in net.parameters()) == UPSTREAM[name]["parameters"]


def test_the_papers_networks_have_the_published_sizes():
    assert UPSTREAM["resnet_9blocks instance dropout=False"]["parameters"] == 11_378_179
    assert UPSTREAM["basic 3 instance"]["parameters"] == 2_764_737
