# SPDX-License-Identifier: MIT
"""Weight gradients of several layers in one launch of the implicit GEMM, against one by one."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from on_load_case import layer
from test_conv_on_load import BF16, DOWN, F16, F32, small_tiles

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_implicit, triton_transposed
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as cut

pytestmark = [
    pytest.mark.skipif(not _triton.INTERPRETED, reason="on a GPU real sizes are cut otherwise"),
    pytest.mark.usefixtures(small_tiles.__name__),
]
LAST, FIRST = torch.channels_last, torch.contiguous_format
# Of several images a layer, so that where a layer begins shows.
TRUNK = ("reflect", (6, 3, 4, 5), (17, 3, 2, 2), 1, 1)
DOWN = ("zeros", (4, *DOWN[1][1:]), *DOWN[2:])
UP = ("transposed", (4, 17, 4, 5), (17, 3, 3, 3), 1, 2)
NORMS = {"before": {"affine": True}, "behind": {"affine": True}}


@pytest.mark.parametrize("programs", [1, 1000], ids=["one split", "splits"])
@pytest.mark.parametrize(
    ("case", "groups", "dtype", "layout", "options"),
    [
        (TRUNK, 3, F32, LAST, {}),
        (TRUNK, 2, BF16, LAST, NORMS | {"dtype": F32}),
        (DOWN, 2, F16, LAST, NORMS),
        (DOWN, 2, F16, FIRST, {}),
        (DOWN, 4, F32, LAST, {"needs": (False, True), "behind": {"affine": True}}),
        (UP, 2, F32, LAST, NORMS),
        (UP, 4, BF16, LAST, {"needs": (True, False)}),
    ],
    ids=str,
)
def test_groups(case, groups, dtype, layout, options, programs, monkeypatch):
    monkeypatch.setattr(cut, "PROGRAMS", programs)
    tested = layer(case, dtype, layout, groups=groups, alone=dtype is BF16)
    with mock.patch.object(triton_implicit, "add_splits", wraps=triton_implicit.add_splits) as add:
        for call in tested.check_gradient_of_weight(**options):
            assert (call.workspace.numel() == 0) == (programs == 1)
    assert bool(add.call_count) == (programs > 1)
    if programs == 1:
        one_by_one(tested, call)


def one_by_one(tested, call):
    """The same sums in the same order: the same bits."""
    n = len(call.x) // call.groups
    for k in range(call.groups):
        own = slice(k * n, (k + 1) * n)
        norm, of_norm = (
            None if norm is None else norm._replace(**parts(norm, k, own))
            for norm in (call.norm, call.of_norm)
        )
        written = [
            None if g is None else torch.full_like(g[k], torch.nan)
            for g in (call.grad_weight, call.grad_bias)
        ]
        x, grad_y = call.x[own], call.grad_y[own]
        one = call._replace(
            x=x, grad_y=grad_y, grad_weight=written[0], grad_bias=written[1], norm=norm,
            of_norm=of_norm, groups=1,
        )  # fmt: skip
        how = (tested.padding, tested.stride)
        tested.module.gradient_of_weight([one], *how, **tested.options)
        for ours, alone in zip((call.grad_weight, call.grad_bias), written, strict=True):
            assert ours is None or torch.equal(ours[k], alone)


def parts(norm, k, own):
    """What is one layer's of a norm's tensors: its weight and bias, and its images'."""
    found = {name: value for name, value in norm._asdict().items() if torch.is_tensor(value)}
    return {name: v[k if name in ("weight", "bias") else own] for name, v in found.items()}


def test_launches_and_workspace(monkeypatch):
    monkeypatch.undo()
    out, weight = torch.Size((1, 256, 64, 64)), torch.Size((256, 256, 3, 3))
    assert triton_implicit.weight_launches(out, weight) == 1
    thin = torch.Size((64, 3, 4, 4))
    images = torch.Size((2, 64, 128, 128))
    assert triton_implicit.weight_launches(images, thin) == 2
    splits = cut.splits_of(images, thin, cut.TILES[2, True])[1]
    assert splits == 16 and splits * 16 <= cut.PROGRAMS
    assert triton_implicit.workspace(images, thin) >= splits * (thin.numel() + 64)
    for groups in (1, 2, 9, 18):
        many = torch.Size((groups * 2, *images[1:]))
        launches = triton_implicit.weight_launches(many, thin, groups)
        assert launches == (2 if groups < 9 else 1)
        each = cut.splits_of(many, thin, cut.TILES[2, True], groups)[1]
        assert each == max(1, 264 // (16 * groups))
        assert (
            triton_transposed.weight_launches(many, torch.Size((3, 64, 4, 4)), groups) == launches
        )
    small = torch.Size((4, 3, 3, 3)), torch.Size((3, 4, 1, 1))
    assert triton_implicit.workspace(torch.Size((2, 3, 1, 1)), torch.Size((3, 2, 16, 17))) == 0
    assert triton_implicit.weight_launches(*small) == 2


def test_images_that_are_no_whole_layers():
    tested = layer(TRUNK, groups=4)
    with pytest.raises(ValueError, match="6 images must be of 4 layers alike"):
        call = layer(TRUNK).weight_call(0, (True, True), None, None)
        tested.module.gradient_of_weight([call._replace(groups=4)], 1, 1)
