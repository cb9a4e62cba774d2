# SPDX-License-Identifier: MIT
"""Plans walked by hand with convolutions in Triton: beside their norms, two networks at once."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from cyclegan_fast import accelerate, backend
from cyclegan_fast.fusion.hand import alone
from cyclegan_fast.fusion.hand_runs import Part
from cyclegan_fast.ops import _into, _triton
from cyclegan_fast.ops.instance_norm_act.into import Call as NormCall
from cyclegan_fast.ops.reflect_conv2d import into, into_between, table
from cyclegan_fast.ops.reflect_conv2d.calls import Statistics
from cyclegan_fast.ops.reflect_conv2d.layers import ON_LOAD
from cyclegan_fast.training.arrangement import Arrangement
from cyclegan_fast.training.beside import beside

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "interpreter")]
import interpreter  # noqa: E402
from hand_walks import FORMATS, by_autograd, pictures, prepared, walk_of  # noqa: E402

pytestmark = pytest.mark.skipif(not _triton.INTERPRETED, reason="interpreted, on the CPU")


@pytest.fixture(autouse=True)
def on_load(request):
    """All convolutions, those with zeros around the image and the transposed ones too.

    Without the norms beside them, unless a test's parameter says so.
    """
    loads = getattr(request, "param", False)

    def first_that_serves(layer, direction):
        if direction == ON_LOAD:
            return "implicit" if loads else None
        names = table.TRITON if layer.kind == "reflect" else ("implicit",)
        return next(name for name in names if table.why_not(name, layer) is None)

    with table.choosing(first_that_serves), interpreter.big_tiles():
        yield loads


class Done:
    """What calls were done, and how many at once."""

    def __init__(self, monkeypatch):
        self.names: Counter[tuple[str, int]] = Counter()
        right = _into.do

        def do(*calls):
            if calls:
                self.names[_name(calls[0]), len(calls)] += 1
            right(*calls)

        monkeypatch.setattr(_into, "do", do)


def _name(call):
    if isinstance(call, NormCall):
        return call.name.removeprefix("instance_norm_act_")
    if isinstance(call, into_between.Call):
        return "statistics" if isinstance(call.operands, Statistics) else "sums"
    if call.direction == "gradient_of_weight":
        return f"{call.direction} of {call.operands.groups}"
    return f"{call.direction} {call.name} {call.layer.kind}"


def gradients(net):
    found = {name: p.grad for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = None
    return found


def passed(net, x, **how):
    """Two passes through a network as a generator has them, and all that they give."""
    walk = walk_of(net, x[0], 3, **how)
    made = alone(walk.forward([Part(x[0], True, False), Part(x[1], True, False)]))
    again = alone(walk.forward([Part(x[2], True, True)]))
    outputs = [*made.outputs, *again.outputs]
    torch.manual_seed(1)
    upstream = [torch.randn_like(y) for y in outputs]
    of_pictures = alone(walk.backward(again, upstream[2:]))
    alone(walk.backward(made, upstream[:2]))
    return outputs, of_pictures, gradients(net), upstream


def check(plain, x, outputs, of_pictures, of_parameters, upstream):
    """Compare what `passed` has returned with autograd's."""
    asked = [(True, False), (True, False), (True, True)]
    parts = [Part(p.double(), *flags) for p, flags in zip(x, asked, strict=True)]
    truth = by_autograd(plain.double(), parts, [g.double() for g in upstream])
    expected = {f"result {i}": y for i, y in enumerate(truth[0])}
    expected |= {"picture": truth[1][2]} | truth[2]
    found = {f"result {i}": y for i, y in enumerate(outputs)}
    found |= {"picture": of_pictures[0]} | of_parameters
    for name, value in expected.items():
        if found[name] is None:
            assert name.endswith("bias") and value.abs().max() < 1e-10, name
            continue
        bound = 2e-5 * max(1.0, value.abs().max().item())
        torch.testing.assert_close(found[name].double(), value, rtol=0, atol=bound, msg=name)


@pytest.mark.parametrize(
    ("kind", "again", "on_load"),
    [
        ("resnet", False, False),
        ("zero padding", True, False),
        ("patch", False, False),
        ("affine resnet", False, True),
        ("patch", False, True),
    ],
    indirect=["on_load"],
)
def test_all_that_a_network_gives(kind, again, on_load, monkeypatch):
    plain, net = (n.float() for n in prepared(kind, FORMATS[1]))
    size = (16, 20) if kind == "patch" else (8, 12)
    x = pictures(size, size, size, dtype=torch.float32)
    done = Done(monkeypatch)
    with backend.use_backend("triton"):
        outputs, of_pictures, of_parameters, upstream = passed(net, x, again=again)
    check(plain, x, outputs, of_pictures, of_parameters, upstream)
    # Every norm begins with what the convolution before it has left, forward; backward those do
    # whose result a convolution alone reads, and has made none of it anew for the next block.
    assert not done.names["fwd", 1]
    if not on_load:
        assert done.names["finish", 1] and done.names["bwd_finish", 1]
    else:
        assert done.names["statistics", 1] and done.names["sums", 1]
        if kind == "patch":  # no residual: nothing of a norm is written
            assert not done.names["finish", 1] and not done.names["bwd_finish", 1]
    # Of the blocks' two convolutions each; those that forward is run again for come one by one.
    assert done.names["gradient_of_weight of 2", 1] == (2 if "resnet" in kind else 0)


@pytest.mark.parametrize(
    "ours",
    [
        lambda layer, _: layer.padding == 3 and len(layer.x) == 1,
        lambda layer, direction: layer.padding == 3 and direction == "gradient_of_input",
        lambda layer, direction: direction == ON_LOAD and len(layer.x) == 2,
    ],
    ids=["the picture's alone", "one way", "norms of one run"],
)
def test_a_table_that_tells_the_runs_of_a_step_apart(ours):
    """Runs of two pictures and of one, of which some layers are ours, and others the library's."""

    def choice(layer, direction):
        kernels = "implicit" if ours(layer, direction) else "library"
        return kernels if table.why_not(kernels, layer) is None else None

    plain, net = (n.float() for n in prepared("affine resnet", FORMATS[1]))
    x = pictures((8, 8), (8, 8), (8, 8), dtype=torch.float32)
    with table.choosing(choice):
        check(plain, x, *passed(net, x))


class Mixed(nn.Module):
    """A norm between convolutions: a result larger than the stride says, or two layouts."""

    def __init__(self, up: nn.Module):
        super().__init__()
        self.up, self.norm, self.relu = up, nn.InstanceNorm2d(6), nn.ReLU()
        self.pad, self.last = nn.ReflectionPad2d(1), nn.Conv2d(6, 5, 3)

    def forward(self, x):
        return self.last(self.pad(self.relu(self.norm(self.up(x)))))


@pytest.mark.parametrize(
    ("up", "last"),
    [
        (lambda: nn.ConvTranspose2d(3, 6, 2, stride=2, output_padding=1), FORMATS[1]),
        (lambda: nn.ConvTranspose2d(3, 6, 4, stride=2, padding=1), FORMATS[1]),
        (lambda: nn.Conv2d(3, 6, 3, padding=1), FORMATS[0]),
    ],
    ids=["larger than the stride says", "as the stride says", "one weight in another layout"],
)
def test_layers_of_other_networks(up, last):
    torch.manual_seed(4)
    plain = Mixed(up())
    net = copy.deepcopy(plain)
    if last == FORMATS[0]:  # the image is contiguous, and the last weight alone is not
        net.last.weight.data = net.last.weight.data.contiguous(memory_format=FORMATS[1])
    else:
        net = net.to(memory_format=FORMATS[1])
    memory_format = "preserve" if last == FORMATS[0] else "channels_last"
    net = accelerate(net, memory_format=memory_format)
    (x,) = pictures((9, 7), dtype=torch.float32)
    with backend.use_backend("triton"):
        walk = walk_of(net, x, 1)
        made = alone(walk.forward([Part(x, True, True)]))
        upstream = torch.randn_like(made.outputs[0])
        (of_x,) = alone(walk.backward(made, [upstream]))
    part = Part(x.double(), True, True)
    truth = by_autograd(plain.double(), [part], [upstream.double()])
    found = {"result": made.outputs[0], "picture": of_x} | gradients(net)
    expected = {"result": truth[0][0], "picture": truth[1][0]} | truth[2]
    for name, value in expected.items():
        if found[name] is not None:
            bound = 2e-5 * max(1.0, value.abs().max().item())
            torch.testing.assert_close(found[name].double(), value, rtol=0, atol=bound, msg=name)


@pytest.mark.parametrize("on_load", [True], indirect=True, ids=["norms on load"])
def test_two_networks_share_every_launch(monkeypatch):
    nets = []
    for seed in (1, 2):
        net = prepared("resnet", FORMATS[1])[1].float()
        torch.manual_seed(seed)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, 0.05, 0.4)
        nets.append(net)
    (x,) = pictures((8, 12), dtype=torch.float32)
    part = [Part(x, True, True)]

    def alone_or_beside(how):
        walks = [walk_of(net, x, 1) for net in nets]
        made = how(*(walk.forward(part) for walk in walks))
        of_pictures = how(
            *(w.backward(m, [m.outputs[0] * 2]) for w, m in zip(walks, made, strict=True))
        )
        outputs = [m.outputs[0] for m in made]
        return [*outputs, *(picture for (picture,) in of_pictures)], [*map(gradients, nets)]

    with backend.use_backend("triton"):
        expected = alone_or_beside(lambda *steps: [alone(each) for each in steps])
        done = Done(monkeypatch)
        aside = Arrangement(torch.device("cpu"), ordered=False, merge=True, by_hand=True, pair=True)
        found = alone_or_beside(lambda *steps: beside(aside, *steps))
    assert all(map(torch.equal, found[0], expected[0]))
    for ours, theirs in zip(found[1], expected[1], strict=True):
        for name, gradient in ours.items():
            assert gradient is None or torch.equal(gradient, theirs[name]), name
    convolutions = {key: n for key, n in done.names.items() if "reflect" in key[0]}
    assert convolutions and all(at_once == 2 for _, at_once in convolutions)
    assert done.names["gradient_of_weight of 2", 2] == 2


def test_calls_that_differ_are_not_alike():
    def call(**changes):
        x = changes.pop("x", torch.zeros(1, 3, 6, 7))
        weight = changes.pop("weight", torch.zeros(4, 3, 3, 3))
        y = torch.empty(1, 4, 4, 5, dtype=x.dtype)
        name = changes.pop("name", "implicit")
        layer = into.Layer(x, weight, **changes)
        return into.forward_call(name, layer, None, y, tanh=False, with_moments=False)[0]

    last = torch.zeros(1, 3, 6, 7).contiguous(memory_format=FORMATS[1])
    assert call().alike(call())
    for changes in (
        {"padding": 1},
        {"stride": 2},
        {"kind": "zeros"},
        {"name": "rows"},
        {"x": last},
        {"x": torch.zeros(1, 3, 6, 7, dtype=torch.float16)},
        {"x": torch.zeros(2, 3, 6, 7)},
        {"weight": torch.zeros(4, 3, 2, 2)},
    ):
        assert not call().alike(call(**changes)), changes
    biased = into.forward_call(
        "implicit", call().layer, torch.zeros(4), call().operands.y, tanh=False, with_moments=False
    )[0]
    assert not call().alike(biased)
