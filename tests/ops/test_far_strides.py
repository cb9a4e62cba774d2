# SPDX-License-Identifier: MIT
"""Strided operands that reach beyond 2^31 elements, of which only a few pages exist."""

from __future__ import annotations

import pytest
import torch

from cyclegan_fast.ops import instance_norm_act
from cyclegan_fast.ops.instance_norm_act import instance_norm_act_and_interior

FAR = 2**31 + 12_345  # no index of 32 bits reaches so far
SHAPE = (3, 3, 4, 5)  # steps that fit into 32 bits, and do not once they are added up


def far_apart(path, values: torch.Tensor, dimension: int) -> torch.Tensor:
    """The values in a sparse file, with a dimension's elements FAR / (size - 1) apart or more."""
    strides = list(values.stride())
    strides[dimension] = FAR // (values.shape[dimension] - 1) + 1
    elements = FAR + 2 * values.numel() + 2
    path.touch()
    memory = torch.from_file(str(path), shared=True, size=elements, dtype=values.dtype)
    view = memory.as_strided(values.shape, strides)
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
