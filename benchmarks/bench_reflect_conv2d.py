# SPDX-License-Identifier: MIT
"""reflect_conv2d of the generator's layers, by what serves it, against pad and convolution.

Products: 2 C_out C KH KW for each output pixel forward, twice that backward. Bytes: x, weight and y
once forward; backward g, x and weight once, and the gradients of x and weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from op_bench import measure

from cyclegan_fast.ops import reflect_conv2d, reflect_conv2d_reference


@dataclass(frozen=True)
class Layer:
    """One convolution of resnet_9blocks."""

    name: str
    channels: int
    out_channels: int
    kernel: int
    shrink: int  # the picture's side over the layer's
    padding: int
    stride: int = 1
    act: str = "none"
    border: int = 0  # pixels of padding that the input has already

    def sides(self, size: int) -> tuple[int, int]:
        """Sides of the input and of the result, for a picture of `size` pixels."""
        side = size // self.shrink + 2 * self.border
        return side, (side + 2 * self.padding - self.kernel) // self.stride + 1


# The strided one pads with zeros in upstream's network: here it shows the op's stride.
LAYERS = [
    Layer("trunk", 256, 256, 3, 4, 1),
    Layer("trunk, padded already", 256, 256, 3, 4, 0, border=1),
    Layer("strided", 64, 128, 3, 1, 1, stride=2),
    Layer("first", 3, 64, 7, 1, 3),
    Layer("last", 64, 3, 7, 1, 3, act="tanh"),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "memory_format", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"]
)
def bench_reflect_conv2d(
    benchmark,
    rows,
    bench_device,
    bench_size,
    bench_batch,
    with_compile,
    layer,
    dtype,
    memory_format,
):
    side, out_side = layer.sides(bench_size)
    shape = (bench_batch, layer.channels, side, side)
    weight_shape = (layer.out_channels, layer.channels, layer.kernel, layer.kernel)
    options = {"padding": layer.padding, "stride": layer.stride, "act": layer.act}

    def operands():
        fan = layer.channels * layer.kernel**2
        x = torch.randn(shape, device=bench_device)
        weight = torch.randn(weight_shape, device=bench_device) / fan**0.5
        return tuple(
            t.to(dtype).contiguous(memory_format=memory_format).requires_grad_()
            for t in (x, weight)
        )

    x_size, weight_size = (torch.Size(s).numel() * dtype.itemsize for s in (shape, weight_shape))
    y_size = bench_batch * layer.out_channels * out_side**2 * dtype.itemsize
    forward = x_size + weight_size + y_size
    first = len(rows)
    measure(
        benchmark,
        rows,
        name=f"{layer.name} {list(shape)} {str(dtype).removeprefix('torch.')} "
        + ("nhwc" if memory_format == torch.channels_last else "nchw"),
        ours=lambda x, weight: reflect_conv2d(x, weight, **options),
        eager=lambda x, weight: reflect_conv2d_reference(x, weight, **options),
        operands=operands,
        moved_bytes=(forward, 2 * forward + x_size + weight_size),
        device=bench_device,
        with_compile=with_compile,
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-3,  # TF32, where it is allowed
    )
    # Multiplications and additions forward; backward has twice as many.
    flops = 2 * bench_batch * out_side**2 * torch.Size(weight_shape).numel()
    for row, times in zip(rows[first:], (1, 3), strict=True):
        products = times * flops
        row["tflop_per_s"] = {
            name: round(products / us / 1e6, 3)
            for name, us in row["microseconds"].items()
            if not name.startswith("copy")
        }
