# SPDX-License-Identifier: MIT
"""Read what a pickle *describes* without running it.

A ``.pth`` file is a small program for a stack machine. This module walks the program's
instructions with the standard library's disassembler and keeps only their meaning: names, numbers,
containers, and for every tensor which bytes of which storage it claims. Nothing is imported, called
or allocated on the file's word, so a claim can be refused before anything acts on it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

# The largest generator of the family (unet_256 with batch norm) needs about 5,000 instructions.
MAX_INSTRUCTIONS = 2_000_000

STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_STORAGES = {f"torch {name}" for name in STORAGE_DTYPES}
_STORAGES |= {name.replace("torch ", "torch.cuda ") for name in _STORAGES}
_REBUILD = {"torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"}
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
_ALLOWED = _STORAGES | _REBUILD | {_PARAMETER, _ORDERED}


class OutlineError(ValueError):
    """The pickle is not a plain container of tensors, or it is damaged; the text says which."""


@dataclass(frozen=True)
class Global:
    """A name that the pickle wants to import, as "module name"."""

    name: str


@dataclass(frozen=True)
class StorageClaim:
    """A run of ``numel`` elements that the file says it holds under ``key``."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes that the claim needs."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class TensorClaim:
    """A tensor as described: a storage, and where in it the elements lie (in elements)."""

    storage: StorageClaim
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def check(self) -> None:
        """Refuse shapes that reach outside the storage or repeat its elements.

        Raises:
            OutlineError: the claim does not fit its storage.
        """
        if len(self.shape) != len(self.stride) or any(
            value < 0 for value in (self.offset, *self.shape, *self.stride)
        ):
            raise OutlineError(f"a tensor has shape {self.shape} and strides {self.stride}")
        numel = 1
        for size in self.shape:
            numel *= size
        last = sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if numel and (numel > self.storage.numel or self.offset + last >= self.storage.numel):
            raise OutlineError(
                f"a tensor of shape {self.shape} and strides {self.stride} claims {numel} elements "
                f"of a storage that holds {self.storage.numel}"
            )


_MARK = object()


def outline(stream: BinaryIO) -> Any:
    """Return what one pickle in ``stream`` describes, and leave the stream behind it.

    Args:
        stream: binary, seekable, standing at the pickle's first byte.

    Returns:
        Numbers, strings, lists, tuples, dicts, and a TensorClaim for each tensor.

    Raises:
        OutlineError: an instruction or a name outside the small set that weights need, a claim that
            does not fit, or damage.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_INSTRUCTIONS:
                raise OutlineError(f"more than {MAX_INSTRUCTIONS} instructions: not a weights file")
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except OutlineError:
        raise
    # IndexError and KeyError: a pop from an empty stack, a get of something never put.
    # The others: the disassembler's answers to bytes that are no instruction.
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise OutlineError(f"damaged or not a weights file ({error})") from None
    raise OutlineError("it ends before its last instruction")


class _Machine:
    """The stack machine; every handler returns data and calls nothing that the file names."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise OutlineError("damaged: a mark where a value is expected")
        return value

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def run(self, name: str, argument: Any) -> None:
        handler = getattr(self, f"op_{name.lower()}", None)
        if handler is not None:
            handler(argument)
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        else:
            raise OutlineError(
                f"it uses the pickle instruction {name}, which no weights file needs"
            )

    def op_proto(self, version: int) -> None:
        if version != 2:
            raise OutlineError(
                f"it is written in pickle protocol {version}, and weights are read from protocol 2 "
                "alone, which is torch.save's default"
            )

    def op_mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def op_binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    op_long_binput = op_binput

    def op_binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    op_long_binget = op_binget

    def op_tuple(self, _: None) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def op_tuple1(self, _: None) -> None:
        self.stack.append((self.pop(),))

    def op_tuple2(self, _: None) -> None:
        last, first = self.pop(), self.pop()
        self.stack.append((first, last))

    def op_tuple3(self, _: None) -> None:
        last, middle, first = self.pop(), self.pop(), self.pop()
        self.stack.append((first, middle, last))

    def op_append(self, _: None) -> None:
        value = self.pop()
        self._of_kind(list).append(value)

    def op_appends(self, _: None) -> None:
        values = self.pop_to_mark()
        self._of_kind(list).extend(values)

    def op_setitem(self, _: None) -> None:
        value, key = self.pop(), self.pop()
        self._set_items([key, value])

    def op_setitems(self, _: None) -> None:
        self._set_items(self.pop_to_mark())

    def op_global(self, name: str) -> None:
        if name not in _ALLOWED:
            raise OutlineError(
                f"it would import {name.replace(' ', '.')}, which is a program, not a tensor"
            )
        self.stack.append(Global(name))

    def op_binpersid(self, _: None) -> None:
        self.stack.append(_storage(self.pop()))

    def op_reduce(self, _: None) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, Global) or not isinstance(arguments, tuple):
            raise OutlineError("damaged: a call of something that is no function")
        self.stack.append(_call(called.name, arguments))

    def op_build(self, _: None) -> None:
        # The one attribute that a state dict has is ``_metadata``; it is not needed.
        state = self.pop()
        if not isinstance(self.stack[-1], dict) or list(state) != ["_metadata"]:
            raise OutlineError("it sets attributes that no dictionary of tensors has")

    def _of_kind(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise OutlineError(f"damaged: a {kind.__name__} expected on the stack")
        return self.stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        target = self._of_kind(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise OutlineError(f"a dictionary has a key of type {type(key).__name__}")
            target[key] = value


# The instructions that torch's own weights_only loader knows.
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINSTRING", "BINUNICODE"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def _storage(identity: Any) -> StorageClaim:
    if not (
        isinstance(identity, tuple)
        and len(identity) in (5, 6)
        and identity[0] == "storage"
        and isinstance(identity[1], Global)
        and identity[1].name in _STORAGES
        and isinstance(identity[2], str)
        and _is_count(identity[4])
    ):
        raise OutlineError("damaged: a storage is not described as torch describes it")
    if len(identity) == 6 and identity[5] is not None:
        raise OutlineError("it shares storages in the way of torch 0.3, which is not read")
    return StorageClaim(
        key=identity[2],
        dtype=STORAGE_DTYPES[identity[1].name.split(" ")[1]],
        numel=identity[4],
    )


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    if name == _ORDERED:
        pairs = arguments[0] if arguments else []
        if len(arguments) > 1 or not isinstance(pairs, (list, tuple)):
            raise OutlineError("damaged: an ordered dictionary of something that is no list")
        made = {}
        for key, value in pairs:
            if not isinstance(key, str):
                raise OutlineError("a dictionary has a key that is not a string")
            made[key] = value
        return made
    if name == _PARAMETER:
        if not arguments or not isinstance(arguments[0], TensorClaim):
            raise OutlineError("damaged: a parameter of something that is no tensor")
        return arguments[0]
    if name in _REBUILD:
        storage, offset, shape, stride, *_ = arguments
        sizes = (shape, stride)
        if not (
            isinstance(storage, StorageClaim)
            and _is_count(offset)
            and all(isinstance(s, tuple) and all(map(_is_count, s)) for s in sizes)
        ):
            raise OutlineError("damaged: a tensor is not described as torch describes it")
        claim = TensorClaim(storage, offset, shape, stride)
        claim.check()
        return claim
    raise OutlineError(f"damaged: {name.replace(' ', '.')} is called")
