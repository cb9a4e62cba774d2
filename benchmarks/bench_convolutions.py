# SPDX-License-Identifier: MIT
"""Each direction of each convolution of an iteration, by every implementation that serves it.

TFLOP/s, and the share of what a large matrix product reaches in the same process, whose operands
and result are 16 bits, or float32 with TF32 where the GPU has it. Peers: padding and cuDNN on
contiguous images, and torch.compile. Operands are in the cache where it holds them, as in training.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from cyclegan_fast.benchmark import tuning
from cyclegan_fast.benchmark.timing import product_tflop_per_s
from cyclegan_fast.benchmark.tuning import Case, Work
from cyclegan_fast.ops.reflect_conv2d.layers import DIRECTIONS, Layer

aten = torch.ops.aten
# name: channels, results, kernel, how many times the input's side goes into the picture's, pixels
# that it is longer then (a norm has padded it), padding, stride, kind
LAYERS = {
    "trunk": (256, 256, 3, 4, 2, 0, 1, "reflect"),
    "trunk and its pad": (256, 256, 3, 4, 0, 1, 1, "reflect"),
    "first": (3, 64, 7, 1, 0, 3, 1, "reflect"),
    "last": (64, 3, 7, 1, 6, 0, 1, "reflect"),
    "down 1": (64, 128, 3, 1, 0, 1, 2, "zeros"),
    "down 2": (128, 256, 3, 2, 0, 1, 2, "zeros"),
    "up 1": (256, 128, 3, 4, 0, 1, 2, "transposed"),
    "up 2": (128, 64, 3, 2, 0, 1, 2, "transposed"),
    "patch 1": (3, 64, 4, 1, 0, 1, 2, "zeros"),
    "patch 2": (64, 128, 4, 2, 0, 1, 2, "zeros"),
    "patch 3": (128, 256, 4, 4, 0, 1, 2, "zeros"),
    "patch 4": (256, 512, 4, 8, 0, 1, 1, "zeros"),
    "patch 5": (512, 1, 4, 8, -1, 1, 1, "zeros"),
}
# Pictures that go through a layer at once: as they are, and joined passes of small batches.
IMAGES = {"trunk": (1, 2, 4, 8, 16), "trunk and its pad": (1, 2, 8)}
WHAT = [(name, images) for name in LAYERS for images in IMAGES.get(name, (1,))]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "images"), WHAT)
def bench_convolutions(
    benchmark, rows, bench_device, bench_size, bench_batch, with_compile, name, images, direction,
    dtype,
):  # fmt: skip
    channels, out, kernel, shrink, longer, padding, stride, kind = LAYERS[name]
    side = bench_size // shrink + longer
    x = (images * bench_batch, channels, side, side)
    transposed = kind == "transposed"
    weight = (channels, out, kernel, kernel) if transposed else (out, channels, kernel, kernel)
    case = Case(direction, x, weight, padding, stride, kind, dtype, channels_last=True)
    peers = functools.partial(_peers, with_compile=with_compile)
    torch.backends.cudnn.benchmark = True  # as in a training
    found = tuning.measure(case, torch.device(bench_device), rounds=9, peers=peers)
    best = _best(bench_device, dtype)
    rates = {who: found.flops / us / 1e6 for who, us in found.microseconds.items()}
    row = {
        "case": f"{name}, {x[0]} of {side}x{side}, {str(dtype).removeprefix('torch.')}",
        "direction": direction,
        "microseconds": {who: round(us, 2) for who, us in found.microseconds.items()},
        "tflop_per_s": {who: round(rate, 3) for who, rate in rates.items()},
        "share_of_product": {who: round(rate / best, 3) for who, rate in rates.items()},
        "excluded": found.excluded,
    }
    rows.append(row)
    benchmark.extra_info.update(row)
    benchmark.pedantic(lambda: None, rounds=1, iterations=1)


@functools.cache
def _best(device: str, dtype: torch.dtype) -> float:
    return product_tflop_per_s(device, "bf16" if dtype == torch.bfloat16 else "fp32")


def _peers(case: Case, layer: Layer, grad_y: Tensor, *, with_compile: bool) -> dict[str, Work]:
    contiguous = case._replace(channels_last=False)
    x, weight, gradient = (t.contiguous() for t in (layer.x, layer.weight, grad_y))
    found = {
        "library, contiguous": tuning.by_library(
            contiguous, layer._replace(x=x, weight=weight), gradient
        )
    }
    if with_compile:
        torch._dynamo.reset()  # one cache per case: Inductor gives up on a function's ninth shape
        compiled = torch.compile(_plain(case), fullgraph=True)
        compiled(layer.x, layer.weight, grad_y)
        found["torch.compile"] = lambda: compiled(layer.x, layer.weight, grad_y)
    return found


def _plain(case: Case):
    """A direction in PyTorch's own operations."""
    needs = [case.direction == d for d in ("gradient_of_input", "gradient_of_weight")]
    pads = case.kind == "reflect" and case.padding > 0
    how = tuning.geometry(case._replace(padding=0) if case.kind == "reflect" else case)

    def plain(x: Tensor, weight: Tensor, grad_y: Tensor) -> tuple[Tensor, ...]:
        padded = aten.reflection_pad2d(x, [case.padding] * 4) if pads else x
        if case.direction == "forward":
            return (aten.convolution(padded, weight, None, *how),)
        made = aten.convolution_backward(grad_y, padded, weight, None, *how, [*needs, False])
        if needs[1]:
            return (made[1],)
        return (
            aten.reflection_pad2d_backward(made[0], x, [case.padding] * 4) if pads else made[0],
        )

    return plain
