# SPDX-License-Identifier: MIT
"""instance_norm_act's raw ops on what a convolution has left: moments and sums, by chunks."""

from __future__ import annotations

import raw_ops
import torch
from raw_ops import ACTS, SLOPE, NormCase, accumulator
from torch import Tensor


def chunks_of(shape: torch.Size, each: int, pitch: int) -> list[Tensor]:
    """Masks [H, W] of the pixels in each chunk of `each` positions, `pitch` to a row."""
    height, width = shape[2:]
    row, column = torch.arange(height)[:, None], torch.arange(width)[None, :]
    chunk = (row * pitch + column) // each
    masks = [chunk == k for k in range(-(-((height - 1) * pitch + width) // each))]
    return [mask.to(raw_ops.device) for mask in masks]


def moments_of(x: Tensor, each: int, pitch: int) -> Tensor:
    """[N, chunks, 3, C]: a pixel, the mean less it, and the sum of squared deviations."""
    found = []
    for mask in chunks_of(x.shape, each, pitch):
        values = x.double()[:, :, mask]
        count = int(mask.sum())
        pixel = values[..., count // 2] if count else torch.zeros_like(values.sum(2))
        mean = values.sum(2) / max(1, count)
        squares = (values - mean[..., None]).square().sum(2)
        found.append(torch.stack([pixel, mean - pixel, squares], 1))
    return torch.stack(found, 1).to(accumulator(x.dtype))


def sums_of(case: NormCase, each: int, pitch: int) -> Tensor:
    """[N, chunks, 2, C]: of each chunk's pixels the sums of dz and of dz xhat."""
    given = {k: None if v is None else v.double() for k, v in case.operands.items()}
    xhat = case._normalised(given["x"], None, None)[0]
    z = case._normalised(given["x"], given["weight"], given["bias"])[0]
    g = torch.zeros_like(z)
    if given["grad_y"] is not None:
        shown = torch.zeros_like(z, requires_grad=True)
        g += torch.autograd.grad(case._padded(shown), shown, given["grad_y"])[0]
    if given["grad_skip"] is not None:
        g += given["grad_skip"]
    slope = {"none": 1.0, "relu": 0.0, "leaky_relu": SLOPE}[case.act]
    dz = torch.where(z > 0, g, g * slope)
    found = [
        torch.stack([dz[:, :, mask].sum(2), (dz * xhat)[:, :, mask].sum(2)], 1)
        for mask in chunks_of(z.shape, each, pitch)
    ]
    return torch.stack(found, 1).to(accumulator(case.dtype))


def forward(case: NormCase, t: dict[str, Tensor], each: int, pitch: int) -> None:
    t["moments"] = moments_of(t["x"], each, pitch)
    raw_ops.ops.instance_norm_act_finish(
        *(t[k] for k in ("x", "weight", "bias", "residual", "moments")),
        each, pitch, ACTS.index(case.act), SLOPE, case.pad, 1e-5,
        *(t[k] for k in ("y", "mean", "rstd")),
    )  # fmt: skip


def backward(case: NormCase, t: dict[str, Tensor], each: int, pitch: int) -> None:
    t["partial"] = sums_of(case, each, pitch)
    raw_ops.ops.instance_norm_act_bwd_finish(
        *(t[k] for k in ("grad_y", "grad_skip", "x", "weight", "bias", "mean", "rstd", "partial")),
        ACTS.index(case.act), SLOPE, case.pad,
        *(t[k] for k in ("grad_x", "grad_residual", "sums")),
    )  # fmt: skip


def run(case: NormCase, each: int, pitch: int) -> dict[str, Tensor]:
    """Both ways, in memory that nobody has written yet."""
    t = case.allocate()
    forward(case, t, each, pitch)
    backward(case, t, each, pitch)
    return t


def run_pair(cases, pairs, each: int, pitch: int) -> None:
    """Run two cases of the same sizes and options, both in one call."""
    case = cases[0]
    for of, t in zip(cases, pairs, strict=True):
        t["moments"], t["partial"] = moments_of(t["x"], each, pitch), sums_of(of, each, pitch)

    def both(*names):
        return ([t[name] for t in pairs] for name in names)

    none = pairs[0]["x"].new_empty(0)
    residuals = [none if t["grad_residual"] is None else t["grad_residual"] for t in pairs]
    raw_ops.ops.instance_norm_act_finish_pair(
        *both("x", "weight", "bias", "residual", "moments"),
        each, pitch, ACTS.index(case.act), SLOPE, case.pad, 1e-5,
        *both("y", "mean", "rstd"),
    )  # fmt: skip
    raw_ops.ops.instance_norm_act_bwd_finish_pair(
        *both("grad_y", "grad_skip", "x", "weight", "bias", "mean", "rstd", "partial"),
        ACTS.index(case.act), SLOPE, case.pad,
        *both("grad_x"), residuals, *both("sums"),
    )  # fmt: skip


# (shape, pad, act, each, pitch): chunks of whole rows, beyond the width, one chunk, many, one of
# them without a pixel, a last one that is short; channels off the block.
CASES = [
    ((2, 20, 9, 7), 1, "relu", 21, 7),
    ((1, 33, 8, 6), 3, "leaky_relu", 16, 9),
    ((2, 64, 12, 12), 1, "relu", 168, 14),
    ((1, 5, 6, 1), 0, "none", 2, 4),
    ((3, 8, 16, 10), 2, "relu", 5, 12),
]


def check(shape, pad, act, each, pitch, dtype, **options) -> None:
    case = NormCase(shape, dtype, "channels_last", act, pad, **options)
    assert len(chunks_of(case.shape, each, pitch)) <= 64
    case.compare(run(case, each, pitch))
