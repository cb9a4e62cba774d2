# SPDX-License-Identifier: MIT
"""Raw CPU ops on tensors that end, or begin, at a page nobody may touch.

    python tests/csrc/fenced.py SEED CALLS

A kernel that reads or writes one byte too far dies of it, which is why this is a program.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import sys

import torch
from torch import Tensor

from cyclegan_fast import _extension
from cyclegan_fast.ops import PackedPictures

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SIZES = (*range(1, 10), 15, 16, 17, 31, 33, 63, 65, 70)
MOST_ELEMENTS = 20_000

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Fences:
    """Hands out tensors between two forbidden pages; at their end, or at their beginning."""

    def __init__(self, at_end: bool) -> None:
        self._at_end = at_end
        self._mapped: list[tuple[int, int]] = []

    def tensor(self, shape, dtype: torch.dtype, channels_last: bool = False) -> Tensor:
        size = torch.Size(shape).numel() * dtype.itemsize
        inner = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        length = inner + 2 * mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        base = libc.mmap(None, length, 0, flags, -1, 0)
        begin = base + mmap.PAGESIZE
        if libc.mprotect(begin, inner, mmap.PROT_READ | mmap.PROT_WRITE):
            raise OSError(ctypes.get_errno(), "mprotect")
        self._mapped.append((base, length))
        start = begin + (inner - size if self._at_end else 0)
        flat = torch.frombuffer((ctypes.c_char * size).from_address(start), dtype=dtype)
        if channels_last:
            n, c, h, w = shape
            return flat.view(n, h, w, c).permute(0, 3, 1, 2)
        return flat.view(shape)

    def random(self, shape, dtype: torch.dtype, channels_last: bool = False) -> Tensor:
        return self.tensor(shape, dtype, channels_last).copy_(torch.randn(shape))

    def remove(self) -> None:
        for base, length in self._mapped:
            libc.munmap(base, length)


def call(seed: int, at_end: bool) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    ops, fences = torch.ops.cyclegan_fast_C, Fences(at_end)
    dtype, channels_last = draw.choice(DTYPES), draw.random() < 0.5
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    while True:
        n, c, h, w = draw.choice((1, 2, 3)), *(draw.choice(SIZES) for _ in range(3))
        if n * c * h * w <= MOST_ELEMENTS and h * w >= 2:
            break
    pad = draw.randrange(min(h, w, 5))
    padded = (n, c, h + 2 * pad, w + 2 * pad)

    def image(shape, *, filled: bool = True) -> Tensor:
        return (fences.random if filled else fences.tensor)(shape, dtype, channels_last)

    x, y, grad_x = image((n, c, h, w)), image(padded, filled=False), image((n, c, h, w))
    if pad:
        ops.reflect_pad2d_fwd(x, pad, y)
        ops.reflect_pad2d_bwd(y, pad, grad_x)
        to = wide if dtype == torch.float64 else draw.choice((torch.float32, torch.bfloat16))
        wider = image((n, c, h, w + 2))[..., 1:-1]
        ops.reflect_pad2d_copy(wider, pad, fences.tensor(padded, to, channels_last))
    act = draw.randrange(3)
    weight, bias = (fences.random((c,), wide) if draw.random() < 0.5 else None for _ in range(2))
    skip = image((n, c, h, w)) if draw.random() < 0.5 else None
    if skip is not None and draw.random() < 0.5:  # the interior of a padded one
        skip = image((n, c, h + 2, w + 2))[:, :, 1:-1, 1:-1]
    mean, rstd = fences.tensor((n, c), wide), fences.tensor((n, c), wide)
    size = ops.instance_norm_act_workspace(
        n, c, h, w, channels_last and not x.is_contiguous(), "cpu"
    )
    work = fences.tensor((max(size, 1),), wide)[:size]
    norm = (x, weight, bias)
    ops.instance_norm_act_fwd(*norm, skip, act, 0.2, pad, 1e-5, y, mean, rstd, work)
    ops.instance_norm_act_apply(*norm, skip, mean, rstd, act, 0.2, pad, y)
    sums, grad_residual = fences.tensor((2, n, c), wide), image((n, c, h, w), filled=False)
    ops.instance_norm_act_bwd(
        y, skip, *norm, mean, rstd, act, 0.2, pad, grad_x, grad_residual, sums, work
    )
    other, loss = image((n, c, h, w)), fences.tensor((), wide)
    work = fences.tensor((ops.loss_workspace(x.numel()),), wide)
    sign = fences.tensor((n, c, h, w), torch.int8, channels_last)
    ops.l1_loss_fwd(x, other, loss, sign, work)
    ops.l1_loss_bwd(loss, sign, grad_x, grad_residual)
    ops.lsgan_loss_fwd(x, other, 0.0, loss, work)
    ops.lsgan_loss_bwd(loss, x, other, 0.0, grad_x, grad_residual)
    rows, shown = image((4, c, h, w)), image((n, c, h, w), filled=False)
    take, put = (fences.tensor((n,), torch.int64) for _ in range(2))
    take.copy_(torch.randint(3 + n, (n,)))
    put.copy_(torch.randperm(4)[:n])
    ops.pool_exchange_fwd(rows, x, take, put, shown)
    sides = [(draw.choice(SIZES), draw.choice(SIZES)) for _ in range(2)]
    rows = [torch.randint(256, (*side, c), dtype=torch.uint8).numpy() for side in sides]
    packed = PackedPictures.pack(rows, [(h + 2, w), (h, w + 1)])
    inputs = [
        fences.tensor(part.shape, part.dtype).copy_(part)
        for part in (packed.levels, packed.table, packed.taps, torch.randint(-9, 9, (n, 4)))
    ]
    ops.augment_fwd(*inputs, image((n, c, h, w), filled=False))
    weights, losses = fences.random((4,), wide), fences.tensor((6,), wide)
    made, grads = (x, x, x, other, None, other), [image((n, c, h, w), filled=False) for _ in "1234"]
    target = fences.random((n, c, h, w), draw.choice((dtype, wide)), channels_last)
    work = fences.tensor((ops.generator_loss_workspace(*[x.numel()] * 4),), wide)
    outputs = (losses, loss, grads[0], None, grads[1], grads[2], None, grads[3], work)
    tanh = draw.random() < 0.5
    ops.generator_loss_fwd(*made, target, target, weights, loss, tanh, *outputs)
    ops.generator_loss_bwd(loss, x, *[None] * 5, grads[0], *[None] * 5)
    winograd(draw, fences, (n, c, h, w))
    thin(draw, fences, (n, draw.choice((1, 3, 4)), h, w), dtype)
    fences.remove()


def winograd(draw: random.Random, fences: Fences, shape: tuple[int, ...]) -> None:
    """Both transforms and what follows the products; float32, channels_last."""
    ops = torch.ops.cyclegan_fast_C
    n, c, h, w = shape
    results = [n, draw.choice(SIZES), h, w]
    windows = n * ((h + 1) // 2) * ((w + 1) // 2)
    first = draw.randrange(windows)
    for of_result, sizes in ((True, results), (False, (n, c, h + 2, w + 2))):
        image = fences.random(sizes, torch.float32, channels_last=True)
        factors = fences.tensor((windows - first, 16, sizes[1]), torch.float32)
        ops.reflect_conv2d_winograd_factors(image, of_result, first, factors)
    products = fences.random((16, results[1], c), torch.float32)
    grad_weight = fences.tensor((results[1], c, 3, 3), torch.float32, channels_last=True)
    ops.reflect_conv2d_winograd_gather(products, grad_weight)


def thin(draw: random.Random, fences: Fences, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """A thin layer's rows, added and spread."""
    ops = torch.ops.cyclegan_fast_C
    n, c, h, w = shape
    taps = draw.choice((1, 2, 7))
    for back in (False, True):
        rows_of = max(1, h - taps + 1) if back else h + taps - 1
        rows = fences.random((n, taps * c, rows_of, w), dtype, channels_last=True)
        image = fences.random(shape, dtype, channels_last=True)
        ops.reflect_conv2d_sum_rows(rows, fences.random((c,), dtype), back, image)
        ops.reflect_conv2d_spread_rows(image, rows)


def main() -> None:
    """Make the calls, and say which one is being made to whoever finds the body."""
    first, count = map(int, sys.argv[1:])
    if not _extension.available():
        raise SystemExit(_extension.why_not())
    for seed in range(first, first + count):
        for at_end in (True, False):
            print(f"call({seed}, {at_end})", flush=True)
            call(seed, at_end)
    print(f"{count} calls, instruction set {torch.ops.cyclegan_fast_C.cpu_instruction_set()}")


if __name__ == "__main__":
    main()
