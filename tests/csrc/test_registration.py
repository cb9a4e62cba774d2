# SPDX-License-Identifier: MIT
"""What is declared is registered, under the schemas that Python calls; opcheck of the raw ops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from raw_calls import ops

import cyclegan_fast
from cyclegan_fast.ops import PackedPictures

NAMESPACE = "cyclegan_fast_C"
STEMS = sorted(path.parent.name for path in Path(cyclegan_fast.__file__).parent.glob("ops/*/op.py"))
# Their compiled kernels are PyTorch's, and cuDNN's and oneDNN's behind and before kernels
# of ours.
UNCOMPILED = {"adam", "reflect_conv2d"}
WITHOUT_GRADIENT = {"augment", "pool_exchange"}
WITHOUT_TENSORS = {
    "instance_norm_act_workspace",
    "loss_workspace",
    "generator_loss_workspace",
    "cpu_instruction_set",
}
# From what a Triton convolution has left: there is none on a CPU. And Hopper's own convolution.
CUDA_ALONE = {
    f"instance_norm_act_{way}{pair}" for way in ("finish", "bwd_finish") for pair in ("", "_pair")
} | {f"reflect_conv2d_hopper_{way}" for way in ("fwd", "bwd", "bwd_weight")}


def declared() -> dict[str, torch.FunctionSchema]:
    schemas = torch._C._jit_get_all_schemas()
    return {s.name.split("::")[1]: s for s in schemas if s.name.startswith(f"{NAMESPACE}::")}


def test_every_stem_has_forward_and_backward():
    assert STEMS, "no op found in cyclegan_fast/ops"
    stems = [stem for stem in STEMS if stem not in UNCOMPILED]
    expected = {f"{stem}_{way}" for stem in stems for way in ("fwd", "bwd")} | WITHOUT_TENSORS
    expected -= {f"{stem}_bwd" for stem in WITHOUT_GRADIENT}
    # Forward from statistics taken elsewhere; from any strides and dtype.
    expected |= {"instance_norm_act_apply", "reflect_pad2d_copy"}
    expected |= {f"instance_norm_act_{way}_pair" for way in ("fwd", "bwd")} | CUDA_ALONE
    parts = ("winograd_factors", "winograd_gather", "sum_rows", "spread_rows")
    expected |= {f"reflect_conv2d_{part}" for part in parts}
    assert set(declared()) == expected


def test_everything_declared_is_registered():
    registered = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in declared().keys() - CUDA_ALONE:
        key = "CompositeExplicitAutograd" if name in WITHOUT_TENSORS else "CPU"
        assert registered(f"{NAMESPACE}::{name}", key), f"{name} has no {key} kernel"


def test_raw_ops_write_and_return_nothing():
    for name, schema in declared().items():
        written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
        if name in WITHOUT_TENSORS:
            assert not written
        else:
            assert written and not schema.returns, f"{name} must write into what it is given"


def twice(*outputs):
    return ([torch.empty_like(out), torch.empty_like(out)] for out in outputs)


def calls():
    x, pad = torch.randn(1, 3, 5, 6), 1
    y, stats = torch.empty(1, 3, 7, 8), torch.empty(1, 3)
    mean, rstd = x.mean((2, 3)), x.var((2, 3), unbiased=False).rsqrt()
    work = torch.empty(ops.instance_norm_act_workspace(1, 3, 5, 6, False, "cpu"))
    loss, sums = torch.empty(()), torch.empty(ops.loss_workspace(x.numel()))
    sign = torch.zeros_like(x, dtype=torch.int8)
    first = torch.zeros(1, dtype=torch.int64)
    packed = PackedPictures.pack([np.zeros((9, 9, 3), np.uint8)], [(6, 7)])
    picks = torch.zeros(1, 4, dtype=torch.int64)
    one_pixel = torch.ones(1)
    many = torch.empty(ops.generator_loss_workspace(1, 1, x.numel(), x.numel()))
    one, like = torch.ones(()), lambda: torch.empty_like(x)
    image = torch.randn(1, 3, 6, 7).contiguous(memory_format=torch.channels_last)
    lasting = torch.randn(1, 9, 8, 7).contiguous(memory_format=torch.channels_last)
    filters = torch.empty(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    norm = (None, None, x, 1, 0.2, pad, 1e-5, y, stats, stats.clone(), work)
    grad_norm = (torch.randn_like(y), x, x, None, None, mean, rstd, 1, 0.2, pad)
    return {
        "instance_norm_act_fwd": (x, *norm),
        "instance_norm_act_bwd": (*grad_norm, like(), like(), torch.empty(2, 1, 3), work),
        "instance_norm_act_fwd_pair": (
            *([x, x + 1], [None] * 2, [None] * 2, [None, x], 1, 0.2, pad, 1e-5),
            *twice(y, stats, stats, work),
        ),
        "instance_norm_act_bwd_pair": (
            *([None, y + 1], [x, None], [x, x + 1], [None] * 2, [None] * 2),
            *([mean, mean], [rstd, rstd], 1, 0.2, pad, [like(), like()], [torch.empty(0), like()]),
            *twice(torch.empty(2, 1, 3), work),
        ),
        "instance_norm_act_apply": (x, None, None, x, mean, rstd, 1, 0.2, pad, y),
        "augment_fwd": (packed.levels, packed.table, packed.taps, picks, like()),
        "pool_exchange_fwd": (torch.randn(3, *x.shape[1:]), x, first, first, like()),
        "reflect_conv2d_sum_rows": (lasting, None, False, image.clone()),
        "reflect_conv2d_spread_rows": (image, lasting.clone()),
        "reflect_conv2d_winograd_factors": (image, False, 1, torch.empty(5, 16, 3)),
        "reflect_conv2d_winograd_gather": (torch.randn(16, 4, 3), torch.empty_like(filters)),
        "reflect_pad2d_fwd": (x, pad, y),
        "reflect_pad2d_copy": (x[:, :, :, ::1], pad, torch.empty_like(y, dtype=torch.bfloat16)),
        "reflect_pad2d_bwd": (torch.randn_like(y), pad, like()),
        "l1_loss_fwd": (x, torch.randn_like(x), loss, sign, sums),
        "l1_loss_bwd": (one, sign, like(), None),
        "generator_loss_fwd": (
            *(one_pixel, one_pixel, x, x, x, None, x, x, torch.ones(4), None, True),
            *(torch.empty(6), loss, torch.empty(1), None, like(), None, like(), None, many),
        ),
        "generator_loss_bwd": (one, x, *[None] * 5, like(), *[None] * 5),
        "lsgan_loss_fwd": (x, None, 1.0, loss, sums),
        "lsgan_loss_bwd": (one, x, torch.randn_like(x), 0.0, like(), like()),
    }


@pytest.mark.parametrize("name", sorted(calls()))
def test_opcheck(name):
    overload = getattr(ops, name).default
    results = torch.library.opcheck(overload, calls()[name])
    assert set(results.values()) == {"SUCCESS"}, results
