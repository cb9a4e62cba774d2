# SPDX-License-Identifier: MIT
"""Which norms and convolutions of a plan help each other, and where what they share is written."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from cyclegan_fast import accelerate, models
from cyclegan_fast.fusion import alike, by_hand
from cyclegan_fast.fusion.alike import Row
from cyclegan_fast.fusion.hand_memory import Memory, beside, whole
from cyclegan_fast.fusion.hand_reads import Read, of_layers
from cyclegan_fast.fusion.neighbours import Neighbours
from cyclegan_fast.fusion.steps import ConvStep, NormStep

sys.path.insert(0, str(Path(__file__).parent))
from hand_walks import FORMATS, prepared  # noqa: E402

CPU = torch.device("cpu")


def planned(net):
    found = by_hand(net, torch.zeros(1, 3, 32, 32), torch.float32, tanhless=False)
    assert not isinstance(found, str), found
    plan, modules = found[:2]
    return plan, modules, Neighbours(plan)


def generator(**how):
    return accelerate(models.ResnetGenerator(3, 3, 4, "instance", False, 3, **how))


# Padded by zeros, what the first one reads is what is added, too; so is what the second one's norm
# makes, but the last time.
@pytest.mark.parametrize(("padding", "sizes"), [("reflect", [3, 3]), ("zero", [2])])
def test_of_a_generator_the_first_and_the_second_convolutions_of_blocks_are_alike(padding, sizes):
    plan, modules, neighbours = planned(generator(padding_type=padding))
    found = alike.rows(plan, modules, neighbours)
    assert sorted(Counter(row.first for row in found.values()).values()) == sizes
    for first in {row.first for row in found.values()}:
        rows = [found[i] for i in sorted(found) if found[i].first == first]
        assert rows == [Row(first, row, len(rows)) for row in range(len(rows))]


class Blocks(nn.Module):
    """Two convolutions of one size between norms, and what comes behind each."""

    def __init__(self, *behind: nn.Module):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)
        self.norm = nn.InstanceNorm2d(4)
        self.convolutions = nn.ModuleList(nn.Conv2d(4, 4, 3) for _ in behind)
        self.behind = nn.ModuleList(behind)

    def forward(self, x):
        y = torch.relu(self.norm(self.first(x)))
        for convolution, behind in zip(self.convolutions, self.behind, strict=True):
            y = behind(convolution(y))
        return self.last(y)


def normed(act: nn.Module, **how) -> nn.Sequential:
    return nn.Sequential(nn.InstanceNorm2d(4, **how), act)


@pytest.mark.parametrize(
    ("behind", "sizes"),
    [
        ([normed(nn.ReLU()) for _ in range(3)], [3]),
        # What the second one would load is another activation's; what the third would, too.
        ([normed(nn.ReLU()), normed(nn.LeakyReLU(0.2)), normed(nn.LeakyReLU(0.2))], [2]),
        ([normed(nn.ReLU()), normed(nn.ReLU(), affine=True)], []),
        ([normed(nn.ReLU()), nn.ReLU()], []),
    ],
    ids=["alike", "another activation", "with parameters", "without a norm"],
)
def test_what_counts_as_alike(behind, sizes):
    found = alike.rows(*planned(accelerate(Blocks(*behind))))
    assert sorted(Counter(row.first for row in found.values()).values()) == sizes


def test_which_norms_need_not_be_written():
    plan, _, neighbours = planned(generator())
    norms = [i for i, step in enumerate(plan.steps) if isinstance(step, NormStep)]
    added = {i for i in norms if len(plan.steps[i].inputs) > 1}
    skipped = {i for i in norms if plan.steps[i].interior is not None}
    assert added and skipped - added  # the first block's input is read past it, too
    for i in norms:
        assert neighbours.need_not_write(i) == (i not in added | skipped)
        assert neighbours.need_not_write_gradient(i)
    _, _, neighbours = planned(prepared("affine", FORMATS[0])[1].float())
    assert not any(map(neighbours.need_not_write, neighbours.convolution_before))


def test_the_convolution_that_pads_the_picture():
    for net, pads in (
        (generator(), True),
        (generator(padding_type="zero"), True),
        (accelerate(models.NLayerDiscriminator(3, 4, 2)), False),
    ):
        plan, _, neighbours = planned(net)
        assert (neighbours.entry is not None) == pads
        if neighbours.entry is not None:
            step = plan.steps[neighbours.entry]
            assert isinstance(step, ConvStep) and step.pad == 3


def test_layers_alike_lie_behind_each_other():
    memory, like = Memory(3), ((2, 5), torch.float32, CPU)
    made = {}
    for row in (1, 0):
        for first, n in ((2, 1), (0, 2)):
            made[row, first] = memory.take("x", Row(0, row, 2), first, n, *like)
    for k, part in enumerate(made.values()):
        part.fill_(k)
    together = beside([whole([made[row, 0], made[row, 2]]) for row in (0, 1)])
    assert together is not None and together.shape == (6, 2, 5)
    assert together[:, 0, 0].tolist() == [3, 3, 2, 1, 1, 0]
    assert beside([made[1, 0], made[0, 0]]) is None
    # All has been taken: what comes next begins anew, also of another size.
    assert memory.take("x", Row(0, 0, 2), 0, 3, (7,), torch.float64, CPU).shape == (3, 7)
    other = memory.take("x", Row(0, 1, 2), 0, 3, *like)
    assert other.shape == (3, 2, 5)


def test_layers_elsewhere_in_memory_are_not_copied_together():
    step = ConvStep(inputs=(0,), output=1, module="a")
    reads = [Read(step, torch.zeros(2, 3, 4, 4), None, torch.zeros(2, 3, 4, 4)) for _ in range(2)]
    assert of_layers(reads) is None
    x, grad_y = torch.zeros(4, 3, 4, 4), torch.zeros(4, 3, 4, 4)
    reads = [Read(step, x[:2], None, grad_y[:2]), Read(step, x[2:], None, grad_y[2:])]
    found = of_layers(reads)
    assert found is not None and found.x.data_ptr() == x.data_ptr() and len(found.grad_y) == 4
    with_tanh = [read._replace(y=read.x) for read in reads]
    assert of_layers(with_tanh) is None
