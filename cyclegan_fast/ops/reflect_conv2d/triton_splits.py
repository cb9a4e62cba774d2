# SPDX-License-Identifier: MIT
"""The second stage of a weight's gradient in Triton: splits of its sum are added up in order."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops._triton import of_call
from cyclegan_fast.ops.reflect_conv2d import triton_operands as operands
from cyclegan_fast.ops.reflect_conv2d.calls import OfWeight

BLOCK = 1024  # elements of a gradient that one program adds up


@triton.jit
def reflect_conv2d_sum_kernel(
    partial_ptr,  # [splits, weight_elements + bias_elements] float32
    grad_weight_ptr,  # [weight_elements], or nothing
    grad_bias_ptr,  # [bias_elements], or nothing
    other_partial_ptr,  # from here on the second call's
    other_weight_ptr,
    other_bias_ptr,
    splits,
    weight_elements,
    bias_elements,
    BLOCK: tl.constexpr,
):
    """Add the splits' sums, in their order."""
    partial_ptr = of_call(partial_ptr, other_partial_ptr)
    grad_weight_ptr = of_call(grad_weight_ptr, other_weight_ptr)
    grad_bias_ptr = of_call(grad_bias_ptr, other_bias_ptr)
    elements = weight_elements + bias_elements
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < elements
    total = tl.zeros((BLOCK,), tl.float32)
    # Eight loads are under way at once.
    for _split in tl.range(splits, loop_unroll_factor=8):
        total += tl.load(partial_ptr + offs, mask=mask, other=0)
        partial_ptr += elements
    tl.store(grad_weight_ptr + offs, total, mask=offs < weight_elements)
    tl.store(grad_bias_ptr + offs - weight_elements, total, mask=mask & (offs >= weight_elements))


def add_splits(calls: Sequence[OfWeight], splits: int, block: int | None = None) -> None:
    """Write the gradients of one call or two from the splits in their workspaces.

    Each split's are all groups' weights, then all groups' biases, as the gradients are.

    Args:
        calls: as those of the first stage.
        splits: of each.
        block: elements that one program adds up, if not BLOCK.
    """
    call, block = calls[0], block or BLOCK
    elements = [0 if g is None else g.numel() for g in (call.grad_weight, call.grad_bias)]
    reflect_conv2d_sum_kernel[(triton.cdiv(sum(elements), block), len(calls))](
        *_pointers(call), *_pointers(calls[-1]), splits, *elements, BLOCK=block
    )


def _pointers(call: OfWeight) -> tuple[Tensor, ...]:
    partial, either = call.workspace, operands.either
    return partial, either(call.grad_weight, partial), either(call.grad_bias, partial)
