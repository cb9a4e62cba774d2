# SPDX-License-Identifier: MIT
"""Triton's interpreter, repaired for bfloat16, with every access checked. For Triton 3.6 to 3.8.

Triton runs a kernel on the CPU, one program after another, when TRITON_INTERPRET is set before it
is decorated. As it comes, it keeps bfloat16 as integers: conversions truncate, arithmetic is
silently wrong. It reads and writes any address, and cannot see that two programs race. `install`
mends the first and reports the rest:

- `tl.sum` adds in a tree, as the hardware does, and not row after row;
- conversions to bfloat16 round to nearest even, as the hardware does; `tl.dot` multiplies the
  values; any other arithmetic on bfloat16 is refused, for kernels compute in float32;
- an address outside all tensors of the launch is an error;
- so is one that two programs of a launch touch, if one of them writes, or one that two lanes of a
  store write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import quick
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle
from triton.tools.tensor_descriptor import TensorDescriptor

from cyclegan_fast.ops import _triton_loss
from cyclegan_fast.ops.adam import Tables
from cyclegan_fast.ops.augment import triton_kernels as augment
from cyclegan_fast.ops.generator_loss import triton_kernels as generator_loss
from cyclegan_fast.ops.instance_norm_act import triton_kernels as instance_norm_act
from cyclegan_fast.ops.pool_exchange import triton_kernels as pool_exchange
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as reflect_conv2d
from cyclegan_fast.ops.reflect_conv2d import triton_rows_tiles as rows
from cyclegan_fast.ops.reflect_pad2d import triton_kernels as reflect_pad2d

# Above this a tensor's elements are not followed one by one: a strided view of a sparse file, say.
MOST_FOLLOWED = 1 << 26
NOBODY, SEVERAL = -1, -2


class KernelError(Exception):
    """What a kernel must not do, with the program that did it."""


def install() -> None:
    """Repair and check the interpreter of this process; again is harmless."""
    if getattr(InterpreterBuilder, "cyclegan_fast_checked", False):
        return
    InterpreterBuilder.cyclegan_fast_checked = True
    _repair_bfloat16()
    _repair_index()
    _repair_sum()
    quick.install(KernelError)
    _patch_once()
    _check_memory()
    _follow_tables()


def _is_bfloat16(value: Any) -> bool:
    # The data first: comparing Triton's types is slow.
    found = isinstance(value, TensorHandle) and value.data.dtype.char == "H"
    return found and value.dtype.scalar == tl.bfloat16


def _widened(data: np.ndarray) -> np.ndarray:
    return (np.ascontiguousarray(data).astype(np.uint32) << 16).view(np.float32)


def _rounded(data: np.ndarray) -> np.ndarray:
    """The upper half of each float32, to nearest, ties to even."""
    bits = np.ascontiguousarray(data, dtype=np.float32).view(np.uint32)
    rounded = ((bits + ((bits >> 16) & 1) + np.uint32(0x7FFF)) >> 16).astype(np.uint16)
    return np.where(np.isnan(data), np.uint16(0x7FC0), rounded)


def _repair_bfloat16() -> None:
    builder = InterpreterBuilder
    cast, dot = builder.cast_impl, builder.create_dot

    def checked_cast(self, source, target):
        if _is_bfloat16(source):
            source = TensorHandle(_widened(source.data), tl.float32)
        if target.scalar == tl.bfloat16:
            return TensorHandle(_rounded(source.data.astype(np.float32)), tl.bfloat16)
        return cast(self, source, target)

    def checked_dot(self, a, b, d, *rest):
        a, b = (
            TensorHandle(_widened(x.data), tl.float32)
            if _is_bfloat16(x)
            else TensorHandle(x.data.astype(d.data.dtype), d.dtype.scalar)
            for x in (a, b)
        )
        return dot(self, a, b, d, *rest)

    builder.cast_impl = checked_cast
    builder.create_fp_ext = builder.create_fp_trunc = checked_cast
    builder.create_fp_to_fp = lambda self, source, target, _rounding: checked_cast(
        self, source, target
    )
    builder.create_dot = checked_dot
    for name in ("binary_op", "unary_op"):
        setattr(builder, name, _refusing_bfloat16(getattr(builder, name)))


def _refusing_bfloat16(operation):
    def checked(self, *arguments, **options):
        for argument in arguments:
            handle = getattr(argument, "handle", argument)
            if _is_bfloat16(handle):
                raise KernelError("arithmetic on bfloat16: convert to float32 after loading")
        return operation(self, *arguments, **options)

    return checked


def _repair_index() -> None:
    """Let `range` take a value of the kernel with NumPy >= 2.4, which Triton 3.6 did not know."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


def _repair_sum() -> None:
    def tree_sum(self, values):
        data = values.handle.data
        if self.axis is None:
            data = data.reshape(-1)
        axis = self.axis or 0
        while data.shape[axis] > 1:  # a power of two, as all of Triton's tensors are
            first, second = np.split(data, 2, axis)
            data = first + second
        shape = values.handle.data.shape
        if self.keep_dims:
            data = data.reshape([1] * len(shape)) if self.axis is None else data
        else:
            data = data.squeeze(axis)
        return self.to_tensor(data, values.dtype)

    interpreter.ReduceOps.sum = _refusing_bfloat16(tree_sum)


def _patch_once() -> None:
    """Patch the language for the device functions of a module once a launch, not every call."""

    def call(self, *arguments, **options):
        module = id(self.fn.__globals__)
        if module not in LAUNCH.patched:
            LAUNCH.patched.add(module)
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*arguments, **options)

    interpreter.InterpretedFunction.__call__ = call


@dataclass
class Buffer:
    """Memory of one or more overlapping tensors of a launch, and which program touched it."""

    begin: int
    end: int
    itemsize: int
    writer: np.ndarray | None = None
    reader: np.ndarray | None = None

    def __post_init__(self) -> None:
        elements = -(-(self.end - self.begin) // self.itemsize)
        if elements <= MOST_FOLLOWED:
            self.writer, self.reader = np.full((2, elements), NOBODY, dtype=np.int64)


@dataclass
class Launch:
    """The buffers of the launch that runs now."""

    buffers: list[Buffer] = field(default_factory=list)
    # By the address of a table: the tensors whose addresses it holds.
    reached: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    patched: set[int] = field(default_factory=set)  # modules of device functions

    def enter(self, tensors: list[torch.Tensor]) -> None:
        self.buffers = []
        self.patched = set()
        tensors = tensors + [t for table in tensors for t in self.reached.get(table.data_ptr(), [])]
        extents = sorted((*_extent(t), t.element_size()) for t in tensors if t.numel())
        for begin, end, itemsize in extents:
            if self.buffers and begin < self.buffers[-1].end:
                last = self.buffers[-1]
                merged = Buffer(last.begin, max(end, last.end), min(itemsize, last.itemsize))
                self.buffers[-1] = merged
            else:
                self.buffers.append(Buffer(begin, end, itemsize))

    def access(self, pointers, mask, itemsize: int, program: int, writes: bool) -> None:
        addresses = pointers.data
        if mask is not None:
            mask = mask if isinstance(mask, np.ndarray) else mask.data  # an array: a descriptor's
            addresses = addresses[np.broadcast_to(mask.astype(bool), addresses.shape)]
        addresses = addresses.ravel().astype(np.int64)
        left = len(addresses)
        for buffer in self.buffers if left else ():
            inside = (addresses >= buffer.begin) & (addresses + itemsize <= buffer.end)
            count = int(inside.sum())
            if count:
                _follow(buffer, addresses[inside], program, writes)
                left -= count
                if not left:
                    return
        if left:
            verb = "written" if writes else "read"
            raise KernelError(
                f"{left} of {len(addresses)} addresses {verb} by program {program} lie outside "
                "all tensors of the launch"
            )


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """First and one past the last byte of a tensor's own elements, not of its storage."""
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.element_size()


def _follow(buffer: Buffer, addresses: np.ndarray, program: int, writes: bool) -> None:
    if buffer.writer is None or buffer.reader is None:
        return
    at = (addresses - buffer.begin) // buffer.itemsize
    writer, reader = buffer.writer[at], buffer.reader[at]
    foreign = (writer != NOBODY) & (writer != program)
    if writes:
        foreign |= (reader != NOBODY) & (reader != program)
        if len(np.unique(at)) < len(at):
            raise KernelError(f"race: program {program} writes an element twice in one store")
    if foreign.any():
        others = sorted(
            set(writer[foreign].tolist() + reader[foreign].tolist()) - {program, NOBODY}
        )
        verb = "writes" if writes else "reads"
        raise KernelError(f"race: program {program} {verb} what programs {others[:4]} touched too")
    if writes:
        buffer.writer[at] = program
    else:
        buffer.reader[at] = np.where((reader == NOBODY) | (reader == program), program, SEVERAL)


LAUNCH = Launch()


def _check_memory() -> None:
    builder, executor = InterpreterBuilder, interpreter.GridExecutor
    load, store = builder.create_masked_load, builder.create_masked_store
    arguments = executor._init_args_hst

    def checked_load(self, pointers, mask, *rest, **options):
        itemsize = interpreter._get_np_dtype(pointers.get_element_ty()).itemsize
        LAUNCH.access(pointers, mask, itemsize, _program(self), writes=False)
        return load(self, pointers, mask, *rest, **options)

    def checked_store(self, pointers, value, mask, *rest):
        LAUNCH.access(pointers, mask, value.data.dtype.itemsize, _program(self), writes=True)
        return store(self, pointers, value, mask, *rest)

    def no_atomics(self, *_arguments):
        raise KernelError("atomics: results would depend on the order of programs")

    def entered(self, args, kwargs):
        result = arguments(self, args, kwargs)
        values = [*result[0], *result[1].values()]
        values = [value.base if isinstance(value, TensorDescriptor) else value for value in values]
        LAUNCH.enter([value for value in values if isinstance(value, torch.Tensor)])
        return result

    builder.create_masked_load, builder.create_masked_store = checked_load, checked_store
    builder.create_atomic_rmw = builder.create_atomic_cas = no_atomics
    executor._init_args_hst = entered


def _follow_tables() -> None:
    """Let adam's launches reach the tensors whose addresses it looks up."""
    find = Tables.find

    def found(self, groups, halves):
        table = find(self, groups, halves)
        tensors = [t for group in (*groups, halves) for t in group if t is not None]
        LAUNCH.reached = {table.rows.data_ptr(): tensors}
        return table

    Tables.find = found


def _program(builder: InterpreterBuilder) -> int:
    x, y, z = builder.grid_idx
    width, height, _ = builder.grid_dim
    return x + width * (y + height * z)


@contextmanager
def big_tiles() -> Iterator[None]:
    """Let one program do what on a GPU many do: time goes by operations, not by elements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_norm_act, "ELEMENTS", 1 << 16)
        patch.setattr(reflect_pad2d, "ELEMENTS", 1 << 16)
        huge = reflect_conv2d.Tiles(1 << 10, 1 << 7, 1 << 7, 8, 1)
        patch.setattr(reflect_conv2d, "TILES", dict.fromkeys(reflect_conv2d.TILES, huge))
        patch.setattr(reflect_conv2d, "GRADIENT_INNER", huge.inner)
        wide = rows.Tiles(rows.EACH, 1 << 7, 1 << 7, 8, 1, 1)
        patch.setattr(rows, "TILES", dict.fromkeys(rows.TILES, wide))
        patch.setattr(_triton_loss, "BLOCK", 1 << 14)
        patch.setattr(generator_loss, "BLOCK", 1 << 14)
        patch.setattr(pool_exchange, "BLOCK", 1 << 12)
        patch.setattr(augment, "BLOCK", 1 << 12)
        yield
