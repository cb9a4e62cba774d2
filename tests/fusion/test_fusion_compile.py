# SPDX-License-Identifier: MIT
"""torch.compile takes accelerated networks whole, before and after, and the other way round."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

from cyclegan_fast import accelerate, models

sys.path.insert(0, str(Path(__file__).parent))
from fusion_compare import planned, run  # noqa: E402
from test_fusion_life import X, assert_same, network  # noqa: E402


@pytest.mark.parametrize("kind", ["resnet", "unet", "patch"])
@pytest.mark.parametrize("accelerated_first", [True, False])
def test_compiled_whole_and_equal(kind, accelerated_first):
    torch._dynamo.reset()
    torch.manual_seed(0)
    net, x = {
        "resnet": lambda: (network(), X),
        "unet": lambda: (models.UnetGenerator(3, 3, 5, 2).double(), torch.randn(1, 3, 64, 64)),
        "patch": lambda: (models.NLayerDiscriminator(3, 4).double(), torch.randn(1, 3, 40, 40)),
    }[kind]()
    x = x.double()
    expected = run(copy.deepcopy(net), x)
    if accelerated_first:
        compiled = torch.compile(accelerate(net), fullgraph=True, backend="aot_eager")
    else:
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        compiled(x)
        assert accelerate(compiled) is compiled
    ours = run(compiled, x)
    assert_same({name.replace("_orig_mod.", ""): value for name, value in ours.items()}, expected)
    assert len(ours) < len(expected), "the plan leaves dead biases out, so it was not walked"
    assert list(planned(net)) == [""]
    assert not planned(net)[""].plain_calls


def test_compiled_in_place_before_or_after():
    torch._dynamo.reset()
    expected = run(network(), X)
    net = accelerate(network())
    net.compile(fullgraph=True, backend="aot_eager")
    assert_same(run(net, X), expected)
    net = network()
    net.compile(fullgraph=True, backend="aot_eager")
    net(X)
    accelerate(net)
    ours = run(net, X)
    assert_same(ours, expected)
    assert "gradient of model.1.bias" not in ours, "the compiled code of before is still used"
