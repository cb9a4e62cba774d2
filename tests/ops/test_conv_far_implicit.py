# SPDX-License-Identifier: MIT
"""The implicit GEMM and the transposed convolution, of images beyond 2^31 elements of a batch.

As test_conv_far.py: of each launch the last program is run alone.
"""

from __future__ import annotations

import pytest
import torch
from test_conv_far import batch, batch_of, check, drawn, last_program, norm_of  # noqa: F401
from test_far_strides import sparse

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_implicit as implicit
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as cut
from cyclegan_fast.ops.reflect_conv2d import triton_transposed as transposed
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Normalised, NormGradient
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="a GPU runs every program, and a file is memory of the CPU's"
)
C = 16  # channels on either side


def statistics(images: int, *shape: int) -> torch.Tensor:
    return torch.rand(images, *shape, generator=torch.Generator().manual_seed(3)) + 0.5


def before() -> Normalised:
    mean, rstd, weight, bias = statistics(4, 1, C)
    return Normalised(mean, rstd, weight, bias, 1, 0.0)


def behind(grad_y: torch.Tensor) -> NormGradient:
    mean, rstd, weight = statistics(3, 1, C)
    x = drawn(*grad_y.shape, seed=6)
    return NormGradient(x, mean, rstd, weight, statistics(1, 1, 2, C)[0])


@pytest.mark.parametrize("on_load", [False, True], ids=["plain", "on load"])
@pytest.mark.parametrize(
    ("module", "side", "stride"),
    [(implicit, 1, 1), (transposed, 3, 2)],
    ids=["implicit", "transposed"],
)
def test_images(module, side, stride, on_load, batch, last_program):  # noqa: F811
    """Of one pixel: then what the norms read and are left lies as far apart as the images."""
    x, y = drawn(1, C, 1, 1), drawn(1, C, stride, stride, seed=2)
    weight, bias = drawn(C, C, side, side, seed=1), drawn(1, C, 1, 1, seed=4).flatten()
    moments = torch.full((1, 1, 3, C), torch.nan)
    norms = (before(), behind(y)) if on_load else (None, None)
    forward = Forward(x, weight, bias, torch.empty_like(y), moments, norms[0])
    left = norm_of(x, 1)._replace(masked=on_load)
    of_input = OfInput(y, None, weight, torch.empty_like(x), left, norms[1])
    n = 2**31 // C + 2
    check(module, (forward, of_input), n, (side // 2, stride), batch, last_program)


@pytest.mark.parametrize("groups", [False, True], ids=["splits", "groups"])
@pytest.mark.parametrize("on_load", [False, True], ids=["plain", "on load"])
@pytest.mark.parametrize("module", [implicit, transposed], ids=["implicit", "transposed"])
def test_gradient_of_weight(
    module,
    on_load,
    groups,
    batch,  # noqa: F811
    last_program,  # noqa: F811
    monkeypatch,
    tmp_path,
):
    """A split of the sum for each image, or a layer for each."""
    tiles = cut.Tiles(16, 16, 16, 4, 1)
    monkeypatch.setattr(cut, "TILES", dict.fromkeys(cut.TILES, tiles))
    monkeypatch.setattr(implicit, "add_splits", lambda *_: None)
    x, grad_y = drawn(1, C, 4, 4), drawn(1, C, 4, 4, seed=1)
    # A transposed convolution's bias has a launch of its own, which would write over the splits.
    of_bias = torch.empty(C) if module is implicit else None
    norms = (before(), behind(grad_y)) if on_load else (None, None)
    near = OfWeight(grad_y, None, x, torch.empty(C, C, 1, 1), of_bias, torch.empty(0), *norms)
    module.gradient_of_weight([near], 0, 1)
    n = 2**31 // x.numel() + 2
    last_program()
    shared = ["workspace", "grad_weight", "grad_bias"] + ["weight", "bias"] * (not groups)
    far = batch_of(near, n, batch, (), shared)
    if groups:
        of_weight = batch(torch.zeros(1, C, C, 1, 1), n)
        of_bias = None if of_bias is None else batch(torch.zeros(1, C), n)
        far = far._replace(grad_weight=of_weight, grad_bias=of_bias, groups=n)
        module.gradient_of_weight([far], 0, 1)
        assert torch.equal(of_weight[-1], near.grad_weight) and not of_weight[0].any()
        assert of_bias is None or torch.equal(of_bias[-1], near.grad_bias)
        return
    monkeypatch.setattr(cut, "PROGRAMS", n)
    size = C * C + (C if module is implicit else 0)
    work = sparse(tmp_path / "work", n * size, torch.float32)
    module.gradient_of_weight([far._replace(workspace=work)], 0, 1)
    last = work[-size:]
    assert torch.equal(last[: C * C].view(C, C), near.grad_weight[:, :, 0, 0])
    assert of_bias is None or torch.equal(last[C * C :], near.grad_bias)
