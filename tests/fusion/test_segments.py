# SPDX-License-Identifier: MIT
"""Blocks run again in backward: the same results and gradients, and less memory in between."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from cyclegan_fast import accelerate, models
from cyclegan_fast.fusion import by_hand
from cyclegan_fast.fusion.hand import HandWalk, alone
from cyclegan_fast.fusion.hand_runs import Part
from cyclegan_fast.fusion.segments import segments
from cyclegan_fast.training.memory import LiveBytes

sys.path.insert(0, str(Path(__file__).parent))
from hand_walks import FORMATS, check, pictures, prepared, walk_of  # noqa: E402

KINDS = ["resnet", "zero padding", "affine"]


def cuts(kind: str) -> list[int]:
    _, net = prepared(kind, FORMATS[0])
    x = pictures((16, 20))[0]
    plan, _ = by_hand(net, x, x.dtype, tanhless=False)
    found = segments(plan)
    assert [i for each in found for i in each] == list(range(len(plan.steps)))
    return [len(each) for each in found]


def test_plans_are_cut_at_their_blocks():
    # Stem and two down; two blocks of two convolutions and two norms; two up and the last layer.
    assert cuts("resnet") == [6, 4, 4, 5]
    assert cuts("zero padding") == [6, 4, 4, 5]
    assert cuts("affine") == [3, 2, 4]
    # Nothing is added in a discriminator: there is no block.
    assert cuts("patch") == [7]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_autograd(kind, together, memory_format):
    plain, net = prepared(kind, memory_format)
    x = pictures((16, 20), (16, 20), (16, 20))
    parts = [Part(x[0], True, False), Part(x[1], True, False), Part(x[2], True, True)]
    walk = walk_of(net, x[0], 3, together=together, again=True)
    check(plain, net, parts, walk, [slice(0, 2), slice(2, 3)])


def gradients(kind, passes, *, again):
    """Walk passes of one picture each; the results, and the gradients of pictures and weights."""
    _, net = prepared(kind, FORMATS[1])
    x = pictures(*[(16, 20)] * passes)
    walk = walk_of(net, x[0], passes, again=again)
    made = [alone(walk.forward([Part(p, True, True)])) for p in x]
    of_x = [alone(walk.backward(each, [each.outputs[0] * 2]))[0] for each in reversed(made)]
    outputs = [each.outputs[0] for each in made]
    return outputs, of_x, [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_are_those_of_a_walk_that_keeps_everything(kind):
    for passes in (1, 2):
        kept, made_again = (gradients(kind, passes, again=again) for again in (False, True))
        for one, other in zip(kept, made_again, strict=True):
            for a, b in zip(one, other, strict=True):
                if one is kept[2] and passes > 1:  # the sum over runs is taken in another order
                    bound = 1e-12 * a.abs().max().item()
                    torch.testing.assert_close(b, a, rtol=0, atol=bound)
                else:
                    assert torch.equal(a, b)


def bytes_of(*, again: bool) -> tuple[int, int]:
    """Bytes alive after two passes forward, and at most in the whole of both directions."""
    net = accelerate(models.ResnetGenerator(3, 3, 4, "instance", False, 9))
    x = [p.float() for p in pictures((32, 32), (32, 32))]
    with LiveBytes() as live:
        walk = walk_of(net, x[0], 2, again=again)
        made = [alone(walk.forward([Part(p, True, True)])) for p in x]
        between = live.now
        for each in reversed(made):
            alone(walk.backward(each, [torch.ones_like(each.outputs[0])]))
    return between, live.peak


def test_it_takes_less_memory():
    kept, peak = bytes_of(again=False)
    kept_less, lower_peak = bytes_of(again=True)
    # A block keeps one tensor of four of that size; what is before and after keeps its input.
    assert kept_less < kept / 3
    assert lower_peak < peak / 2


def weight_gradients_twice(monkeypatch):
    monkeypatch.setattr(HandWalk, "_let_go", lambda self, i: None)


def another_input(monkeypatch):
    right = HandWalk._through

    def through(self, run, segment, registers, *, keep):
        if keep:
            registers = [None if r is None else r * 1.001 for r in registers]
        yield from right(self, run, segment, registers, keep=keep)

    monkeypatch.setattr(HandWalk, "_through", through)


@pytest.mark.parametrize("wrong", [weight_gradients_twice, another_input])
def test_a_wrong_walk_differs(wrong, monkeypatch):
    wrong(monkeypatch)
    with pytest.raises(AssertionError):
        test_gradients_are_those_of_autograd("resnet", True, FORMATS[0])
