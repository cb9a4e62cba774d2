# SPDX-License-Identifier: MIT
"""Two walks beside each other: what each makes does not depend on the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cyclegan_fast import accelerate, models
from cyclegan_fast.fusion import by_hand
from cyclegan_fast.fusion.hand import HandWalk, alone
from cyclegan_fast.fusion.hand_runs import Part
from cyclegan_fast.ops import _into
from cyclegan_fast.ops.instance_norm_act import into
from cyclegan_fast.training.arrangement import Arrangement
from cyclegan_fast.training.beside import beside

X = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(3))


def generator(blocks: int = 1, width: int = 4) -> nn.Module:
    return accelerate(models.ResnetGenerator(3, 3, width, n_blocks=blocks))


def walk_of(net: nn.Module, *, again: bool = False) -> HandWalk:
    plan, modules = by_hand(net, X, X.dtype, tanhless=False)
    return HandWalk(plan, modules, lambda p: p.detach(), None, 1, together=True, again=again)


def part(i: int) -> list[Part]:
    return [Part(X[i : i + 1], weights=True, picture=True)]


def gradients(net: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("pair", [True, False])
@pytest.mark.parametrize("blocks", [(1, 1), (1, 3), (2, 1)])
@pytest.mark.parametrize("widths", [(4, 4), (4, 6)])
def test_each_walk_is_as_if_it_were_alone(pair, blocks, widths, again):
    nets = [generator(*shape) for shape in zip(blocks, widths, strict=True)]
    expected = []
    for i, net in enumerate(copy.deepcopy(nets)):
        walk = walk_of(net)
        made = alone(walk.forward(part(i)))
        (of_x,) = alone(walk.backward(made, [made.outputs[0] * 2]))
        expected.append((made.outputs[0], of_x, gradients(net)))
    aside = Arrangement(torch.device("cpu"), ordered=False, merge=True, by_hand=True, pair=pair)
    first, second = (walk_of(net, again=again) for net in nets)
    made = beside(aside, first.forward(part(0)), second.forward(part(1)))
    upstream = [[each.outputs[0] * 2] for each in made]
    found = beside(
        aside, first.backward(made[0], upstream[0]), second.backward(made[1], upstream[1])
    )
    for net, each, (of_x,), (y, of_picture, of_parameters) in zip(
        nets, made, found, expected, strict=True
    ):
        assert torch.equal(each.outputs[0], y)
        assert torch.equal(of_x, of_picture)
        for name, gradient in gradients(net).items():
            assert (gradient is None) == (of_parameters[name] is None), name
            assert gradient is None or torch.equal(gradient, of_parameters[name]), name


def test_norms_of_one_size_go_in_pairs_and_others_do_not(monkeypatch):
    done = []
    right = _into.do
    monkeypatch.setattr(_into, "do", lambda *calls: (done.append(len(calls)), right(*calls)))
    aside = Arrangement(torch.device("cpu"), ordered=False, merge=True, by_hand=True, pair=True)
    beside(aside, walk_of(generator(1)).forward(part(0)), walk_of(generator(2)).forward(part(1)))
    # Stem, two down, two for each block, two up; the second network has a block more.
    assert [count for count in done if count] == [2] * 7 + [1] * 2


def test_calls_that_differ_are_not_alike():
    def call(**changes):
        x = changes.pop("x", torch.zeros(1, 3, 4, 5))
        options = {"act": "relu", "negative_slope": 0.0, "pad": 0, "eps": 1e-5} | changes
        name = options.pop("backend_name", "native")
        y = torch.empty(1, 3, 4 + 2 * options["pad"], 5 + 2 * options["pad"], dtype=x.dtype)
        mean, rstd = (torch.empty(x.shape[:2]) for _ in range(2))
        return into.forward_call(y, x, *[None] * 3, mean, rstd, backend_name=name, **options)

    assert call().alike(call())
    last = torch.zeros(1, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    for changes in (
        {"act": "none"},
        {"pad": 1},
        {"eps": 1e-3},
        {"x": last},
        {"x": torch.zeros(1, 3, 4, 5, dtype=torch.float64)},
        {"x": torch.zeros(2, 3, 4, 5)},
    ):
        assert not call().alike(call(**changes)), changes
    triton = call()._replace(backend_name="triton")
    assert not triton.alike(triton)
