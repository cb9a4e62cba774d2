# SPDX-License-Identifier: MIT
"""Strided operands that reach beyond 2^31 elements, of which only a few pages exist."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cyclegan_fast import backend
from cyclegan_fast.ops import (
    PackedPictures,
    _triton,
    augment,
    instance_norm_act,
    pool_exchange,
    reflect_conv2d,
)
from cyclegan_fast.ops.instance_norm_act import instance_norm_act_and_interior
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as conv

FAR = 2**31 + 12_345  # no index of 32 bits reaches so far
SHAPE = (3, 3, 4, 5)  # steps that fit into 32 bits, and do not once they are added up


def far_apart(path, values: torch.Tensor, dimension: int) -> torch.Tensor:
    """The values in a sparse file, with a dimension's elements FAR / (size - 1) apart or more."""
    strides = list(values.stride())
    strides[dimension] = FAR // (values.shape[dimension] - 1) + 1
    elements = FAR + 2 * values.numel() + 2
    view = sparse(path, elements, values.dtype).as_strided(values.shape, strides)
    view.copy_(values)
    return view


@pytest.mark.parametrize("dimension", range(4))
def test_residual_and_gradient_of_the_skip(dimension, tmp_path, fused_backend, device):
    if device != "cpu":
        pytest.skip("a file is memory of the CPU's")
    x, residual, grad = torch.randn(3, *SHAPE).half()
    far = far_apart(tmp_path / "residual", residual, dimension)
    assert (
        far.storage_offset()
        + sum((n - 1) * s for n, s in zip(far.shape, far.stride(), strict=True))
        > 2**31
    )
    assert torch.equal(instance_norm_act(x, residual=far), instance_norm_act(x, residual=residual))

    far_grad = far_apart(tmp_path / "grad", grad, dimension)
    gradients = []
    for each in (far_grad, grad):
        leaf = x.clone().requires_grad_()
        _, interior = instance_norm_act_and_interior(leaf, pad=1)
        gradients.append(torch.autograd.grad(interior, leaf, each)[0])
    assert torch.equal(*gradients)


@pytest.mark.skipif(not _triton.INTERPRETED, reason="a file is memory of the CPU's")
def test_channels_of_a_convolution_in_triton(tmp_path, monkeypatch):
    """One window over an image whose last channels lie beyond 2^31 elements."""
    channels, side = 2**17 + 1, 128
    memory = sparse(tmp_path / "x", channels * side * side, torch.float16)
    x = memory.view(1, channels, side, side)
    x[0, -1, 0, 0] = 3
    weight = torch.zeros(1, channels, 1, 1, dtype=torch.float16)
    weight[0, -1] = 2
    weight.requires_grad_()
    # Few programs, and tiles within Triton's largest: forward adds channels, backward keeps them.
    tiles = (conv.Tiles(16, 16, 1 << 15, 4, 1), conv.Tiles(16, 1 << 12, 16, 4, 1))
    monkeypatch.setattr(conv, "TILES", dict.fromkeys(conv.TILES, tiles[0]))
    with backend.use_backend("triton"):
        y = reflect_conv2d(x, weight, padding=0, stride=side)
        assert y.tolist() == [[[[6.0]]]]
        monkeypatch.setattr(conv, "TILES", dict.fromkeys(conv.TILES, tiles[1]))
        (gradient,) = torch.autograd.grad(y, weight, torch.full_like(y, 5))
    assert gradient[0, -1].item() == 15 and gradient.count_nonzero() == 1


def sparse(path, elements: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros, of which only those pages exist that somebody writes."""
    path.touch()
    return torch.from_file(str(path), shared=True, size=elements, dtype=dtype)


def test_a_picture_far_into_the_data_set(tmp_path, fused_backend, device):
    if device != "cpu":
        pytest.skip("a file is memory of the CPU's")
    picture = torch.randint(256, (9, 7, 3), dtype=torch.uint8)
    near = PackedPictures.pack([picture.numpy()], [(11, 12)])
    levels = sparse(tmp_path / "levels", 2**32 + 1000, torch.uint8)
    table = near.table.clone()
    table[0, 0] = 2**32 + 300
    levels[2**32 + 300 :][: picture.numel()] = near.levels
    far = dataclasses.replace(near, levels=levels, table=table)
    picks = torch.tensor([[0, 1, 2, 1]])
    assert torch.equal(augment(far, picks, (10, 8)), augment(near, picks, (10, 8)))


def test_a_row_far_into_a_pool(tmp_path, fused_backend, device):
    if device != "cpu":
        pytest.skip("a file is memory of the CPU's")
    shape = (2**21 + 1, 1, 32, 33)
    rows = sparse(tmp_path / "rows", torch.Size(shape).numel(), torch.float16).view(shape)
    assert rows.numel() > 2**31
    kept, picture = torch.randn(2, *shape[1:]).half()
    last = len(rows) - 2
    rows[last] = kept
    number = torch.tensor([last])
    assert torch.equal(pool_exchange(rows, picture[None], number, number)[0], kept)
    assert torch.equal(rows[last], picture) and not rows[last - 1].any()
