# SPDX-License-Identifier: MIT
"""What a plan holds: the groups that were found, registers, frees; and that every step matters."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cyclegan_fast import accelerate, models
from cyclegan_fast.fusion import plan_of
from cyclegan_fast.fusion.guard import bind
from cyclegan_fast.fusion.steps import (
    ConvStep,
    FunctionStep,
    ModuleStep,
    NormStep,
    PadStep,
    references,
    written,
)
from cyclegan_fast.fusion.walk import walk

sys.path.insert(0, str(Path(__file__).parent))
from foreign_networks import every_foreign_network  # noqa: E402
from fusion_compare import planned  # noqa: E402


def norms(net: nn.Module) -> list[tuple[str, bool, int]]:
    """(activation, has a residual, pad) of each fused norm."""
    steps = [step for step in plan_of(net).steps if isinstance(step, NormStep)]
    return [(step.act, len(step.inputs) == 2, step.pad) for step in steps]


def test_everything_in_the_papers_generator_is_fused():
    net = models.ResnetGenerator(3, 3, 4)
    plan = plan_of(net)
    assert norms(net) == [
        *[("relu", False, 0)] * 2,
        ("relu", False, 1),
        *[("relu", False, 1), ("none", True, 1)] * 8,
        ("relu", False, 1),
        ("none", True, 0),
        ("relu", False, 0),
        ("relu", False, 3),
    ]
    assert not any(isinstance(step, PadStep | ModuleStep | FunctionStep) for step in plan.steps)
    # The stem's skip and eight blocks' are read unpadded as well.
    interiors = [step.interior for step in plan.steps if isinstance(step, NormStep)]
    assert sum(interior is not None for interior in interiors) == 9
    convs = [step for step in plan.steps if isinstance(step, ConvStep)]
    assert len(convs) == 24
    assert [step.module for step in convs if step.use_bias] == ["model.26"]
    assert len(plan.dead_biases) == 23
    # Two convolutions pad with zeros and two are transposed.
    assert sum(step.served for step in convs) == 20
    assert [step.pad for step in convs if step.pad] == [3]
    assert [step.module for step in convs if step.act == "tanh"] == ["model.26"]
    assert convs[-1] is plan.steps[-1]
    assert plan.memory_format == "channels_last"


def test_the_unets_activations_are_fused_though_the_skip_reads_them():
    net = models.UnetGenerator(3, 3, 6, 2)
    assert norms(net) == [("leaky_relu", False, 0)] * 4 + [("none", False, 0)] * 5
    plan = plan_of(net)
    cats = [step for step in plan.steps if isinstance(step, FunctionStep)]
    activated = {step.output for step in plan.steps if isinstance(step, NormStep) and step.act}
    assert all(step.target is torch.cat for step in cats)
    assert sum(step.inputs[0] in activated for step in cats) == 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "fast_neural_style",
            [("relu", False, 1), ("relu", False, 1)]
            + [("relu", False, 1), ("none", True, 1), ("relu", False, 1), ("none", True, 0)]
            + [("relu", False, 4)],
        ),
        (
            "functional_unet",
            [("none", False, 0), ("leaky_relu", False, 0), ("relu", False, 0), ("relu", False, 0)],
        ),
        (
            "contrastive",
            [("relu", False, 0), ("relu", False, 0)]
            + [("relu", False, 1), ("none", True, 1), ("relu", False, 1), ("none", True, 0)]
            + [("relu", False, 3)],
        ),
        (
            "optional_parts",
            [("leaky_relu", False, 1), ("relu", False, 1)]
            + [("relu", False, 1), ("none", True, 1)] * 2
            # the last sum is returned, so it is not made a view of a padded one
            + [("relu", False, 1), ("none", True, 0)],
        ),
        ("pre_activation", [("relu", False, 0), ("none", True, 0), ("none", False, 0)]),
    ],
)
def test_groups_found_in_foreign_networks(name, expected):
    assert norms(every_foreign_network()[name][0]) == expected


@pytest.mark.parametrize("name", every_foreign_network())
def test_registers_are_written_before_read_and_freed_after_the_last_read(name):
    plan = plan_of(every_foreign_network()[name][0])
    full, freed = set(plan.inputs), set()
    for step in plan.steps:
        assert set(step.inputs) <= full - freed
        full.update(written(step))
        freed |= set(step.frees)
    kept = set(references(plan.output))
    assert kept <= full - freed
    assert full == set(range(plan.registers)) == freed | kept


def mutants(step):
    """The same step, done wrong in one way."""
    if isinstance(step, NormStep):
        # A ReLU that follows would hide another ReLU, but not values of the wrong sign.
        yield (
            {"act": "none"} if step.act == "relu" else {"act": "leaky_relu", "negative_slope": -1.0}
        )
        yield {"eps": step.eps + 1e-3}
        if len(step.inputs) == 2:
            yield {"inputs": step.inputs[:1]}
    elif isinstance(step, ConvStep):
        yield {"use_bias": not step.use_bias}
        if step.act == "tanh":
            yield {"act": "none"}


@pytest.mark.parametrize("name", ["resnet", "unet", *every_foreign_network()])
def test_doing_any_step_wrong_changes_the_result(name):
    torch.manual_seed(2)
    if name == "resnet":
        net, shape = models.ResnetGenerator(3, 3, 4, n_blocks=2), (1, 3, 16, 16)
    elif name == "unet":
        net, shape = models.UnetGenerator(3, 3, 5, 4), (1, 3, 64, 64)
    else:
        net, shape = every_foreign_network()[name]
    net = net.double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    plan, x = plan_of(net, "preserve"), torch.randn(shape, dtype=torch.float64)
    modules = bind(net, plan.guards)

    def result(steps):
        return torch.cat([y.flatten() for y in leaves(walk(replaced(plan, steps), modules, (x,)))])

    truth, tried = result(plan.steps), 0
    for i, step in enumerate(plan.steps):
        for change in mutants(step):
            wrong = dataclasses.replace(step, **change)
            changed = result((*plan.steps[:i], wrong, *plan.steps[i + 1 :]))
            harmless = "use_bias" in change and (
                not step.use_bias  # a norm takes it away
                or net.get_submodule(step.module).bias is None
            )
            difference = (changed - truth).abs().max().item()
            assert (difference < 1e-9) == harmless, (step, change, difference)
            tried += 1
    assert tried >= 8


def replaced(plan, steps):
    """The plan with other steps, which may read what the right ones would have let go."""
    return dataclasses.replace(
        plan, steps=tuple(dataclasses.replace(step, frees=()) for step in steps)
    )


def leaves(result):
    return list(result.values()) if isinstance(result, dict) else [result]


def test_a_network_without_any_pattern_is_left_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    before = dict(net.__dict__)
    assert accelerate(net) is net
    assert not planned(net)
    assert net.__dict__ == before


def test_a_lone_norm_and_a_lone_pad_are_served():
    for layer in (nn.InstanceNorm2d(3, affine=True), nn.ReflectionPad2d(2)):
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        layer = layer.double()
        expected = layer(x)
        fast = accelerate(copy.deepcopy(layer))
        assert planned(fast)
        torch.testing.assert_close(fast(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast(x[0]), expected[0], rtol=0, atol=1e-12)
