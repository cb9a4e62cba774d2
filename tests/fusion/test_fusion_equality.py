# SPDX-License-Identifier: MIT
"""An accelerated network is the plain one: results and every gradient, in networks of all kinds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from cyclegan_fast import accelerate, backend, models
from cyclegan_fast.fusion.modules import installed
from cyclegan_fast.ops import instance_norm_act

sys.path.insert(0, str(Path(__file__).parent))
from foreign_networks import every_foreign_network  # noqa: E402
from fusion_compare import assert_equal_to_plain, assert_within_budget_of_plain  # noqa: E402

FOREIGN = sorted(every_foreign_network())


def own(kind: str, norm: str, dropout: bool = False):
    """One of the package's networks, small, with weights that matter, and a fitting input."""
    torch.manual_seed(5)
    net, size = {
        "resnet": lambda: (models.ResnetGenerator(3, 3, 4, norm, dropout, 2), (18, 23)),
        "resnet_zero": lambda: (models.ResnetGenerator(3, 3, 4, norm, dropout, 1, "zero"), (9, 8)),
        "resnet_none": lambda: (models.ResnetGenerator(3, 3, 4, norm, dropout, 0), (8, 8)),
        "unet": lambda: (models.UnetGenerator(3, 3, 6, 2, norm, dropout), (64, 128)),
        "patch": lambda: (models.NLayerDiscriminator(3, 4, 3, norm), (37, 40)),
        "pixel": lambda: (models.PixelDiscriminator(3, 4, norm), (7, 9)),
    }[kind]()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0.05, 0.3)
    return net, torch.randn(2, 3, *size) + 0.5


KINDS = ("resnet", "resnet_zero", "resnet_none", "unet", "patch", "pixel")


@pytest.mark.parametrize("memory_format", ["channels_last", "preserve"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_own_networks_in_float64(kind, train, memory_format):
    net, x = own(kind, "instance")
    assert_equal_to_plain(net.train(train), x, memory_format=memory_format)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_own_networks_with_other_norms_keep_their_pads_fused(norm):
    net, x = own("resnet", norm)
    fast = assert_equal_to_plain(net, x)
    assert len(installed(fast).plans[0].fused) == 6


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_dropout_draws_the_same_numbers(kind, train):
    # Dropout draws in memory order, so the layouts must agree for the masks to.
    net, x = own(kind, "instance", dropout=True)
    assert_equal_to_plain(net.train(train), x, memory_format="preserve")


def test_results_come_back_in_the_layout_of_the_input():
    net, x = own("resnet", "instance")
    fast = assert_equal_to_plain(net, x)
    assert fast(x.double()).is_contiguous()
    with backend.use_backend("native"):
        y = fast(x.double().contiguous(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "converted"), [("native", True), ("reference", False)])
def test_layout_is_converted_only_where_the_norm_keeps_it(monkeypatch, name, converted):
    seen = []

    def spy(x, *args, **kwargs):
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return instance_norm_act(x, *args, **kwargs)

    monkeypatch.setattr("cyclegan_fast.fusion.walk.instance_norm_act", spy)
    net, x = own("patch", "instance")
    with backend.use_backend(name):
        accelerate(net)(x)
    assert seen == [converted] * 3


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("train", [True, False])
def test_foreign_networks_in_float64(name, train):
    net, shape = every_foreign_network()[name]
    if name == "functional_unet" and train:
        assert_equal_to_plain(net, torch.randn(shape) + 0.5, memory_format="preserve")
    else:
        assert_equal_to_plain(net.train(train), torch.randn(shape) + 0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_own_networks_within_the_budget(kind, dtype):
    assert_within_budget_of_plain(*own(kind, "instance"), dtype)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_foreign_networks_within_the_budget(name, dtype):
    net, shape = every_foreign_network()[name]
    assert_within_budget_of_plain(net.eval(), torch.randn(shape) + 0.5, dtype)


@pytest.mark.parametrize("kind", ["resnet", "unet", "patch", *FOREIGN])
def test_under_autocast_within_the_budget(kind):
    def call(net, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.float32):
            return net(x)

    if kind in FOREIGN:
        net, shape = every_foreign_network()[kind]
        assert_within_budget_of_plain(net.eval(), torch.randn(shape), torch.float32, call)
    else:
        assert_within_budget_of_plain(*own(kind, "instance"), torch.float32, call)
