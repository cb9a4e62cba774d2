# SPDX-License-Identifier: MIT
"""What Triton makes of each kernel, per architecture, as the launchers launch it; needs no GPU.

    python benchmarks/triton_compile.py 75 90      sm_75 and sm_90; without numbers, all of them
    python benchmarks/triton_compile.py --brief    what CI has time for: of the convolutions, and of
                                                   norms beside them, bfloat16 and float32 alone,
                                                   and the main forms on every second architecture

The launchers run as they are, on CPU tensors, with a stand-in for Triton's CUDA driver: each launch
is compiled for the architecture asked for, with the arguments' own specialisation, and not run.
Prints a JSON list of what was compiled.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import cubin
import torch
import triton_compile_convolutions as convolutions
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton_compile_convolutions import image

from cyclegan_fast.ops import _common
from cyclegan_fast.ops.adam import triton_kernels as adam
from cyclegan_fast.ops.augment import triton_kernels as augment
from cyclegan_fast.ops.generator_loss import triton_kernels as generator
from cyclegan_fast.ops.instance_norm_act import triton_kernels as norm
from cyclegan_fast.ops.l1_loss import triton_kernels as l1
from cyclegan_fast.ops.lsgan_loss import triton_kernels as lsgan
from cyclegan_fast.ops.pool_exchange import triton_kernels as pool
from cyclegan_fast.ops.reflect_conv2d.table import FIRST_TENSOR_CORES
from cyclegan_fast.ops.reflect_pad2d import triton_kernels as pad2d

# Bytes of shared memory that a block may have (CUDA C++ Programming Guide, compute capabilities).
SHARED_LIMIT = {
    75: 64 << 10,
    80: 163 << 10,
    86: 99 << 10,
    89: 99 << 10,
    90: 227 << 10,
    100: 227 << 10,
    120: 99 << 10,
}
BRIEFLY = (80, 90, 120)  # architectures whose code differs most
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class Compiled:
    """One kernel on one architecture."""

    name: str  # kernel and what it was launched for
    architecture: int
    registers: int
    shared: int
    local: int
    stack: int


class _Recorder:
    """Takes the place of Triton's CUDA driver and of its utilities."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture
        self.purpose = ""
        self.compiled: list[Compiled] = []
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture  # Triton keeps what it compiled per device

    def get_current_stream(self, _device: object = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_properties(self, _device: int) -> dict[str, int]:
        return {
            "max_shared_mem": SHARED_LIMIT[self.architecture],
            "max_num_regs": 65536,
            "multiprocessor_count": 132,
            "warpSize": 32,
        }

    def load_binary(self, name: str, binary: bytes, shared: int, _device: int) -> tuple:
        usage = _resource_usage(binary)
        self.compiled.append(
            Compiled(
                f"{name} [{self.purpose}]",
                self.architecture,
                usage["REG"],
                shared,
                usage["LOCAL"],
                usage["STACK"],
            )
        )
        return object(), object(), usage["REG"], 0, 1024

    def unload_module(self, _module: object) -> None:
        pass

    def launcher_cls(self, _source: object, _metadata: object) -> Callable[..., None]:
        return lambda *_arguments: None


def _resource_usage(binary: bytes) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        lines = cubin.usage(file.name).splitlines()
    return cubin.numbers(next(line for line in lines if "REG:" in line))


@contextmanager
def _recording(architecture: int) -> Iterator[_Recorder]:
    recorder = _Recorder(architecture)
    before = driver._active
    driver.set_active(recorder)
    try:
        yield recorder
    finally:
        driver._active = before


def compile_all(architecture: int, *, brief: bool = False) -> list[Compiled]:
    """Compile the kernels for an architecture, 90 for sm_90 say: all, or what CI has time for."""
    with _recording(architecture) as recorder:
        for dtype in DTYPES:
            of_convolutions = dtype != torch.float64 and not (brief and dtype == torch.float16)
            for layout in LAYOUTS:
                launches = list(_launches(dtype, layout))
                if of_convolutions and layout is torch.channels_last:
                    launches += _beside_convolutions(dtype)
                for what, launch in launches:
                    names = str(dtype)[6:], str(layout)[6:], what
                    recorder.purpose = " ".join(name for name in names if name)
                    launch()
                if architecture >= 10 * FIRST_TENSOR_CORES[0] and of_convolutions:
                    _convolutions(dtype, layout, recorder, brief=brief)
        for what, launch in _adam_launches():
            recorder.purpose = what
            launch()
    return recorder.compiled


def _launches(dtype: torch.dtype, layout: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every variant of every kernel in one dtype and layout; shapes as in the networks."""
    yield from _norm_launches(dtype, layout)
    x, y = image(dtype, layout, 1, 64, 32), image(dtype, layout, 1, 64, 38)
    yield "", partial(pad2d.reflect_pad2d_fwd, x, 3, y)
    yield "", partial(pad2d.reflect_pad2d_bwd, y, 3, x)
    numbers = torch.zeros(1, 4, dtype=torch.int64)
    levels, taps = torch.empty(1, dtype=torch.uint8), torch.empty(1, dtype=torch.int32)
    yield "", partial(augment.augment_fwd, levels, numbers, taps, numbers, x)
    if layout is torch.contiguous_format:  # losses see a row of elements
        yield from _loss_launches(x, torch.empty_like(x))
        yield from _generator_launches(x)
        numbers = torch.zeros(1, dtype=torch.int64)
        yield "", partial(pool.pool_exchange_fwd, torch.cat([x, x]), x, numbers, numbers, x)


def _norm_launches(dtype: torch.dtype, layout: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    wide = _common.accumulator(dtype)
    work = torch.empty(1 << 20, dtype=wide)
    for n, size in ((1, 64), (16, 16)):  # split into chunks, and resident
        for act, pad, full in ((1, 1, False), (0, 1, True), (2, 0, False), (1, 3, True)):
            x = image(dtype, layout, n, 256, size)
            y = image(dtype, layout, n, 256, size + 2 * pad)
            mean, rstd = torch.empty(2, n, 256, dtype=wide)
            sums = torch.empty(2, n, 256, dtype=wide)
            weight, bias = torch.empty(2, 256, dtype=wide) if full else (None, None)
            skip = torch.empty_like(x) if full else None
            options = f"{n} of {size}x{size}, act {act}, pad {pad}" + ", all operands" * full
            forward = (x, weight, bias, skip, act, 0.2, pad, 1e-5, y, mean, rstd, work)
            yield options, partial(norm.instance_norm_act_fwd, *forward)
            forward = (x, weight, bias, skip, mean, rstd, act, 0.2, pad, y)
            yield f"given, {options}", partial(norm.instance_norm_act_apply, *forward)
            backward = (y, skip, x, weight, bias, mean, rstd, act, 0.2, pad, x, skip, sums, work)
            yield options, partial(norm.instance_norm_act_bwd, *backward)


def _beside_convolutions(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], None]]]:
    """The norms' kernels on what convolutions have left: moments, and sums."""
    layout, wide = torch.channels_last, torch.float32
    for n, size in ((1, 64), (16, 16)):
        for act, pad, full in ((1, 1, False), (0, 1, True), (1, 3, True)):
            x, y = (image(dtype, layout, n, 256, side) for side in (size, size + 2 * pad))
            mean, rstd = torch.empty(2, n, 256, dtype=wide)
            weight, bias = torch.empty(2, 256, dtype=wide) if full else (None, None)
            skip = torch.empty_like(x) if full else None
            moments, sums = (torch.empty(n, 33, rows, 256, dtype=wide) for rows in (3, 2))
            options = f"{n} of {size}x{size}, act {act}, pad {pad}" + ", all operands" * full
            how = (act, 0.2, pad)
            forward = (x, weight, bias, skip, moments, 128, 66, *how, 1e-5, y, mean, rstd)
            yield options, partial(norm.instance_norm_act_finish, *forward)
            read = (y, skip, x, weight, bias, mean, rstd, sums)
            backward = (*read, *how, x, skip, torch.empty(2, n, 256, dtype=wide))
            yield options, partial(norm.instance_norm_act_bwd_finish, *backward)


def _loss_launches(a: Tensor, b: Tensor) -> Iterator[tuple[str, Callable[[], None]]]:
    wide = _common.accumulator(a.dtype)
    loss, work = torch.empty((), dtype=wide), torch.empty(1024, dtype=wide)
    sign = torch.empty(a.shape, dtype=torch.int8)
    yield "", partial(l1.l1_loss_fwd, a, b, loss, sign, work)
    yield "no gradient", partial(l1.l1_loss_fwd, a, b, loss, None, work)
    yield "", partial(l1.l1_loss_bwd, loss, sign, a, b)
    yield "one side", partial(l1.l1_loss_bwd, loss, sign, a, None)
    for what, target in (("", None), ("tensor", b)):
        yield what, partial(lsgan.lsgan_loss_fwd, a, target, 1.0, loss, work)
        yield what, partial(lsgan.lsgan_loss_bwd, loss, a, target, 1.0, a, target)


def _generator_launches(x: Tensor) -> Iterator[tuple[str, Callable[[], None]]]:
    wide = _common.accumulator(x.dtype)
    one, weights, losses = (torch.empty(size, dtype=wide) for size in ((), 4, 6))
    work = torch.empty(1 << 10, dtype=wide)
    for tanh in (False, True):
        for target in dict.fromkeys((x, x.to(wide)) if x.dtype != wide else (x,)):
            for identity in (x, None):
                made = (x, x, x, x, identity, identity, target, target)
                grads = (x, x, x, x, identity, identity)
                forward = (*made, weights, one, tanh, losses, one, *grads, work)
                options = f"tanh {tanh}, original {str(target.dtype)[6:]}"
                options += ", identity" * (identity is not None)
                yield options, partial(generator.generator_loss_fwd, *forward)
    yield "", partial(generator.generator_loss_bwd, one, *[x] * 12)


def _convolutions(dtype: torch.dtype, layout: Any, recorder: _Recorder, *, brief: bool) -> None:
    """Compile the convolutions, of float32 with TF32 too."""
    allowed = torch.backends.cudnn.allow_tf32
    few = brief and recorder.architecture not in BRIEFLY
    try:
        for tf32 in (False, True) if dtype == torch.float32 and not brief else (False,):
            torch.backends.cudnn.allow_tf32 = tf32
            for what, launch in convolutions.launches(dtype, layout, wide_only=tf32, few=few):
                names = str(dtype)[6:], str(layout)[6:], what
                recorder.purpose = " ".join(names) + ", TF32" * tf32
                launch()
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def _adam_launches() -> Iterator[tuple[str, Callable[[], None]]]:
    rows, programs = (torch.empty(shape, dtype=torch.int64) for shape in ((4, 7), (9, 2)))
    factors = torch.empty(2, 4)
    one = torch.empty(())
    for half in (torch.float16, torch.bfloat16, None):
        for aligned in (True, False):
            for found in (one, None):
                options = f"copies {half}, {'aligned' if aligned else 'anywhere'}"
                arguments = (rows, programs, aligned, factors, one, found, 0.5, 0.999, 1e-8, half)
                options += ", may skip" * (found is not None)
                yield options, partial(adam.adam_update, *arguments)


def main() -> None:
    """Compile for the architectures named, side by side."""
    arguments = sys.argv[1:]
    brief = "--brief" in arguments
    architectures = [int(text) for text in arguments if text.isdigit()] or list(SHARED_LIMIT)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        compiled = list(pool.map(partial(compile_all, brief=brief), architectures))
    json.dump([asdict(kernel) for kernels in compiled for kernel in kernels], sys.stdout)


if __name__ == "__main__":
    main()
