# SPDX-License-Identifier: MIT
"""Random calls of the ops: any shape, strides, dtype and values, and now and then a wrong argument.

A call is a pure function of its seed: `Call(seed)` makes it again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# Sizes at which loops, tiles and vectors end; a whole tensor stays below MOST_ELEMENTS.
SIZES = [0, *range(1, 18), 31, 32, 33, 37, 53, 63, 64, 65, 97, 127, 128, 129]
MOST_ELEMENTS = 12_000
LAYOUTS = ["contiguous", "channels_last", "transposed", "sliced", "expanded", "misaligned"]
VALUES = ["normal", "normal", "normal", "far", "zero", "tiny", "constant planes", "largest of fp16"]
NOT_FINITE = ["inf", "nan"]


@dataclass
class Call:
    """One call of one op.

    Attributes:
        op: the op's stem.
        operands: tensors that take a gradient, by the name of the argument.
        options: the other arguments.
        wrong: what is wrong with it, or "" for a call that must work.
        finite: whether all values are.
    """

    seed: int
    op: str = ""
    operands: dict[str, Tensor] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""
    finite: bool = True

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.op = self.random.choice(
            ["instance_norm_act"] * 6
            + ["reflect_pad2d", "l1_loss", "lsgan_loss"] * 2
            + ["generator_loss"] * 3
            + ["reflect_conv2d"]
        )
        {
            "instance_norm_act": self._norm,
            "reflect_pad2d": self._pad,
            "l1_loss": self._l1,
            "lsgan_loss": self._lsgan,
            "generator_loss": self._generator,
            "reflect_conv2d": self._conv,
        }[self.op]()
        if self.random.random() < 0.12:
            self._break()

    def __repr__(self) -> str:
        tensors = [
            f"{name}={str(t.dtype)[6:]}{tuple(t.shape)} strides {t.stride()}"
            for name, t in self.operands.items()
        ]
        wrong = f" [{self.wrong}]" if self.wrong else ""
        return f"Call({self.seed}): {self.op}({', '.join(tensors)}, {self.options}){wrong}"

    def gradient(self, like: Tensor) -> Tensor:
        """A random gradient for an output, in strides of its own."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        layout = random.Random(self.seed + 1).choice(LAYOUTS)
        values = torch.randn(like.shape, generator=generator).to(like.dtype)
        return arranged(values, layout)

    def _shape(self, rank: int, smallest: tuple[int, ...] = ()) -> tuple[int, ...]:
        while True:
            shape = tuple(self.random.choice(SIZES) for _ in range(rank))
            shape = (self.random.choice([0, 1, 1, 1, 2, 3]), *shape[1:]) if rank == 4 else shape
            numel = 1
            for size in shape:
                numel *= size
            ends = shape[rank - len(smallest) :]
            if numel <= MOST_ELEMENTS and all(s >= m for s, m in zip(ends, smallest, strict=True)):
                return shape

    def _tensor(self, shape: tuple[int, ...], dtype: torch.dtype, finite: bool = False) -> Tensor:
        wild = self.random.random() < 0.08 and not finite
        kind = self.random.choice(NOT_FINITE if wild else VALUES)
        x = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        if kind == "far":
            x += 1000 if dtype in (torch.float32, torch.float64) else 3
        elif kind == "zero":
            x.zero_()
        elif kind == "tiny":
            x *= 1e-30
        elif kind == "constant planes":
            x = x[..., :1, :1].expand(shape) if x.dim() >= 2 and x.numel() else x
        elif kind == "largest of fp16":
            x = torch.where(x > 1.5, 65504.0, x)
        elif kind in NOT_FINITE and x.numel():
            x.view(-1)[self.random.randrange(x.numel())] = float(kind)
            self.finite = False
        return arranged(x.to(dtype), self.random.choice(LAYOUTS))

    def _norm(self) -> None:
        shape = self._shape(4, (1, 2) if self.random.random() < 0.5 else (2, 1))
        dtype = self.random.choice(DTYPES)
        self.operands["x"] = self._tensor(shape, dtype)
        if self.random.random() < 0.4:
            # Finite: what infinity times zero is depends on the order of operations.
            self.operands["weight"] = self._tensor(shape[1:2], self.random.choice(DTYPES), True)
        if self.random.random() < 0.4:
            self.operands["bias"] = self._tensor(shape[1:2], self.random.choice(DTYPES))
        if self.random.random() < 0.5:
            self.operands["residual"] = self._tensor(shape, dtype)
        self.options = {
            "act": self.random.choice(["none", "relu", "leaky_relu"]),
            "negative_slope": self.random.choice([0.2, 0.01, 0.0]),
            "pad": self.random.randrange(min(*shape[2:], 9)),
            "eps": self.random.choice([1e-5, 1e-5, 1e-3]),
        }

    def _pad(self) -> None:
        shape = self._shape(4, (1, 1))
        self.operands["x"] = self._tensor(shape, self.random.choice(DTYPES))
        self.options["pad"] = self.random.randrange(min(shape[2:]))

    def _conv(self) -> None:
        shape = self._shape(4, (1, 1, 1))
        while math.prod(shape) > 1_000:  # it is interpreted, tap by tap and image by image
            shape = self._shape(4, (1, 1, 1))
        dtype = self.random.choice(DTYPES[:3])  # Triton has no float64
        padding = self.random.randrange(min(*shape[2:], 3))
        kernel = [self.random.randrange(1, min(side + 2 * padding, 3) + 1) for side in shape[2:]]
        channels = self.random.choice([1, 2, 3, 5, 16, 17])
        self.operands["x"] = self._tensor(shape, dtype)
        # Finite: what infinity times zero is depends on what an implementation skips.
        self.operands["weight"] = self._tensor((channels, shape[1], *kernel), dtype, True)
        if self.random.random() < 0.5:
            self.operands["bias"] = self._tensor((channels,), dtype, True)
        self.options = {
            "padding": padding,
            "stride": self.random.choice([1, 1, 2, 3]),
            "act": self.random.choice(["none", "none", "tanh"]),
        }

    def _pair(self, second: str, first: str) -> None:
        shape = self._shape(self.random.randrange(5))
        while 0 in shape:
            shape = self._shape(self.random.randrange(5))
        self.operands[first] = self._tensor(shape, self.random.choice(DTYPES))
        self.operands[second] = self._tensor(shape, self.random.choice(DTYPES))

    def _l1(self) -> None:
        self._pair("b", "a")

    def _lsgan(self) -> None:
        self._pair("target", "pred")
        if self.random.random() < 0.6:
            del self.operands["target"]
            self.options["target"] = self.random.choice([True, False, 1.0, 0, 0.9])

    def _generator(self) -> None:
        dtype = self.random.choice(DTYPES)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        of_A, of_B = (self._shape(4, (1, 1)) for _ in "AB")
        of_A, of_B = ((max(n, 1), max(c, 1), h, w) for n, c, h, w in (of_A, of_B))
        for name in ("pred_A", "pred_B"):
            shape = self._shape(self.random.randrange(1, 5))
            self.operands[name] = self._tensor(tuple(max(s, 1) for s in shape), dtype)
        self.operands["rec_A"] = self._tensor(of_A, dtype)
        self.operands["rec_B"] = self._tensor(of_B, dtype)
        for name, shape in (("idt_A", of_B), ("idt_B", of_A)):
            if self.random.random() < 0.7:
                self.operands[name] = self._tensor(shape, dtype)
            else:
                self.options[name] = None
        original = self.random.choice([dtype, wide])
        self.options |= {
            "real_A": self._tensor(of_A, original, True),
            "real_B": self._tensor(of_B, original, True),
            "weights": torch.rand(4, generator=self.generator, dtype=torch.float64).to(wide) * 10,
            "scale": self.random.choice([None, torch.tensor(4.0, dtype=wide)]),
            "tanh": self.random.random() < 0.6,
        }

    def _break(self) -> None:
        first = next(iter(self.operands))
        x = self.operands[first]
        ways: list[tuple[str, Callable[[], Any]]] = [
            ("integers", lambda: self.operands.update({first: torch.zeros(x.shape).int()})),
            ("no tensor", lambda: self.options.update({first: self.operands.pop(first).tolist()})),
        ]
        if "pad" in self.options:
            least = min(x.shape[2:])
            ways += [
                ("pad too wide", lambda: self.options.update(pad=max(least, 1))),
                ("negative pad", lambda: self.options.update(pad=-1)),
                ("pad no int", lambda: self.options.update(pad=1.0)),
                ("rank 3", lambda: self.operands.update({first: x[0] if len(x) else x.sum(0)})),
            ]
        if self.op == "instance_norm_act":
            other = torch.zeros(x.shape[1] + 1)
            ways += [
                ("unknown act", lambda: self.options.update(act="gelu")),
                ("weight's shape", lambda: self.operands.update(weight=other)),
                ("one pixel", lambda: self.operands.update({first: torch.zeros(1, 2, 1, 1)})),
            ]
        if self.op == "generator_loss":
            other = torch.zeros(2, *self.operands["rec_A"].shape)
            ways += [
                ("original's shape", lambda: self.options.update(real_A=other)),
                ("weights' shape", lambda: self.options.update(weights=torch.ones(5))),
                ("scale's dtype", lambda: self.options.update(scale=torch.ones(()).half())),
                ("no elements", lambda: self.operands.update(pred_B=torch.zeros(0))),
            ]
        if self.op == "reflect_conv2d":
            weight = self.operands["weight"]
            least = min(x.shape[2:])
            other = torch.zeros(len(weight), x.shape[1] + 1, 1, 1, dtype=x.dtype)
            ways += [
                ("padding too wide", lambda: self.options.update(padding=max(least, 1))),
                ("stride 0", lambda: self.options.update(stride=0)),
                ("unknown act", lambda: self.options.update(act="relu")),
                ("weight's channels", lambda: self.operands.update(weight=other)),
                ("dtypes differ", lambda: self.operands.update(weight=weight.double())),
            ]
        if len(self.operands) == 2 and self.op.endswith("loss"):
            second = list(self.operands)[1]
            longer = torch.zeros(2, *x.shape)
            ways.append(("shapes differ", lambda: self.operands.update({second: longer})))
            ways.append(("no elements", lambda: self.operands.update({first: torch.zeros(0, 3)})))
        self.wrong, change = self.random.choice(ways)
        change()


def arranged(x: Tensor, layout: str) -> Tensor:
    """The same values (but for "expanded", which repeats the first) in other strides."""
    if layout == "channels_last" and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "transposed" and x.dim() >= 2:
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "sliced" and x.dim() >= 1:
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), float("nan"), dtype=x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if layout == "expanded" and x.dim() >= 1 and x.shape[0] > 0:
        return x[:1].expand(x.shape)
    if layout == "misaligned":
        flat = torch.full((x.numel() + 1,), float("nan"), dtype=x.dtype)
        flat[1:] = x.reshape(-1)
        return flat[1:].view(x.shape)
    return x.contiguous()
