# SPDX-License-Identifier: MIT
"""Random calls of the ops without gradients: those that move pictures, and Adam.

A call is a pure function of its seed, as those of calls.py are: `DataCall(seed)` makes it again.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from calls import DTYPES, LAYOUTS, arranged
from numerics import assert_within_budget, largest, same_values
from torch import Tensor

from cyclegan_fast import ops

SIDES = [*range(1, 18), 31, 32, 33, 37]
FAR = [-(2**62), -(2**31) - 1, -1, 2**31, 2**62]
ODD = [float("nan"), float("inf"), -float("inf"), -0.0, 65504.0, 1e-30]
MOST_TIMES_SMALLER = 4  # of Pillow's filter the reference reads the square of it


class DataCall:
    """One call, and what is wrong with it ("" for a call that must work)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.op = self.random.choice(["pool_exchange", "augment", "adam"])
        self.wrong = ""
        self.options: dict[str, Any] = {}
        {"pool_exchange": self._pool, "augment": self._augment, "adam": self._adam}[self.op]()
        if self.random.random() < 0.12:
            self.wrong, changed = self.random.choice(self._ways())
            self.options |= changed

    def __repr__(self) -> str:
        wrong = f" [{self.wrong}]" if self.wrong else ""
        shown = {
            name: f"{str(value.dtype)[6:]}{tuple(value.shape)} strides {value.stride()}"
            if isinstance(value, Tensor) and value.numel() > 16
            else value
            for name, value in self.options.items()
        }
        return f"DataCall({self.seed}): {self.op}({shown}){wrong}"

    def check(self) -> None:
        """Call the op; fail unless it answers rightly, or says what is wrong."""
        if self.wrong:
            with pytest.raises((ValueError, TypeError), match=rf"^{self.op}: [\w\[\]]+ must"):
                getattr(ops, self.op)(**self.options)
            return
        {
            "pool_exchange": self._check_pool,
            "augment": self._check_augment,
            "adam": self._check_adam,
        }[self.op]()

    def _ways(self) -> list[tuple[str, dict[str, Any]]]:
        given = self.options
        if self.op == "pool_exchange":
            rows, pictures, take = given["rows"], given["pictures"], given["take"]
            return [
                ("another size", {"pictures": torch.cat([pictures, pictures], 3)}),
                ("another dtype", {"pictures": pictures.to(torch.complex64)}),
                ("int32 numbers", {"take": take.int()}),
                ("a number too many", {"put": torch.zeros(len(take) + 1, dtype=torch.int64)}),
                ("a pool of none", {"rows": rows[:1]}),
                ("rows with holes", {"rows": torch.stack([rows, rows], -1)[..., 0]}),
                ("no tensor", {"take": take.tolist()}),
            ]
        if self.op == "augment":
            picks, (height, width) = given["picks"], given["size"]
            least = given["pictures"].least
            return [
                ("crop too high", {"size": (least[0] + 1, width)}),
                ("crop of nothing", {"size": (height, 0)}),
                ("a side", {"size": height}),
                ("whole dtype", {"dtype": torch.uint8}),
                ("three numbers", {"picks": picks[:, :3].contiguous()}),
                ("int32 numbers", {"picks": picks.int()}),
                ("no packed pictures", {"pictures": picks}),
                ("layout", {"memory_format": torch.preserve_format}),
            ]
        params = given["params"]
        return [
            ("a gradient too few", {"grads": given["grads"][1:]}),
            ("a moment too many", {"exp_avgs": [*given["exp_avgs"], params[0]]}),
            ("a gradient's shape", {"grads": [torch.zeros(3, 1, 2) for _ in params]}),
            ("another shape", {"exp_avg_sqs": [torch.zeros(3, 1, 2) for _ in params]}),
            ("another dtype", {"exp_avgs": [p.double() for p in params]}),
            ("steps of two", {"steps": [torch.zeros(2) for _ in params]}),
            ("wide copies", {"halves": [p.clone() for p in params]}),
        ]

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        x = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        for value in ODD:
            if x.numel() and self.random.random() < 0.2:
                x.view(-1)[self.random.randrange(x.numel())] = value
        return x.to(dtype)

    def _side(self) -> int:
        return self.random.choice(SIDES)

    def _pool(self) -> None:
        n, channels, size = (self.random.choice([1, 1, 2, 3, 5]) for _ in range(3))
        n = self.random.choice([n, n, n, 0])
        picture, dtype = (channels, self._side(), self._side()), self.random.choice(DTYPES)
        dense = self.random.choice(["contiguous", "channels_last", "misaligned"])
        kept = [*range(size), *FAR, *[size] * n]
        self.random.shuffle(kept)
        take = [self.random.choice([*range(size + n), *FAR]) for _ in range(n)]
        self.options = {
            "rows": arranged(self._values((size + 1, *picture), dtype), dense),
            "pictures": arranged(self._values((n, *picture), dtype), self.random.choice(LAYOUTS)),
            "take": torch.tensor(take, dtype=torch.int64),
            "put": torch.tensor(kept[:n], dtype=torch.int64),
        }

    def _check_pool(self) -> None:
        rows = self.options["rows"]
        theirs = rows.clone()
        expected = ops.pool_exchange_reference(**(self.options | {"rows": theirs}))
        shown = ops.pool_exchange(**self.options)
        assert same_values(shown, expected), "shown"
        assert same_values(rows[:-1], theirs[:-1]), "kept"

    def _augment(self) -> None:
        channels = self.random.choice([1, 2, 3, 3, 4, 5])
        height, width = self._side(), self._side()
        files, scaled = [], []
        for _ in range(self.random.randrange(1, 4)):
            size = height + self.random.randrange(5), width + self.random.randrange(5)
            sides = (
                self.random.choice([s, self.random.randrange(1, MOST_TIMES_SMALLER * s + 1)])
                for s in size
            )
            values = torch.randint(256, (*sides, channels), generator=self.generator)
            if self.random.random() < 0.5:  # edges, where the filter overshoots
                values = (values > 127) * 255
            files.append(values.to(torch.uint8).numpy())
            scaled.append(size)
        n = self.random.choice([0, 1, 1, 2, 3])
        picks = [
            [self.random.choice([*range(6), *FAR]) for _ in range(3)] + [self.random.randrange(2)]
            for _ in range(n)
        ]
        self.options = {
            "pictures": ops.PackedPictures.pack([np.ascontiguousarray(f) for f in files], scaled),
            "picks": torch.tensor(picks, dtype=torch.int64).view(n, 4),
            "size": (height, width),
            "dtype": self.random.choice(DTYPES),
            "memory_format": self.random.choice([torch.contiguous_format, torch.channels_last]),
        }

    def _check_augment(self) -> None:
        made, expected = ops.augment(**self.options), ops.augment_reference(**self.options)
        assert made.dtype == expected.dtype
        assert made.is_contiguous(memory_format=self.options["memory_format"])
        assert torch.equal(made, expected)

    def _adam(self) -> None:
        shapes = [
            tuple(self.random.choice([*SIDES, 0]) for _ in range(self.random.randrange(4)))
            for _ in range(self.random.randrange(1, 6))
        ]

        def some(spread: float) -> list[Tensor]:
            return [torch.randn(s, generator=self.generator) * spread for s in shapes]

        params, spread = some(0.02), self.random.choice([1e-12, 1e-3, 1.0, 1e4])
        half = self.random.choice([torch.float16, torch.bfloat16])
        self.options = {
            "params": params,
            "grads": [arranged(g, self.random.choice(LAYOUTS)) for g in some(spread)],
            "exp_avgs": some(spread),
            "exp_avg_sqs": [(g * g) for g in some(spread)],
            "steps": [torch.tensor(float(self.random.randrange(2000))) for _ in shapes],
            "lr": torch.tensor(self.random.choice([0.0, 2e-4, 1.0])),
            "beta1": self.random.choice([0.0, 0.5, 0.9]),
            "found_inf": self.random.choice([None, None, torch.zeros(()), torch.ones(())]),
            "halves": self.random.choice(
                [None, [p.to(half) if self.random.random() < 0.7 else None for p in params]]
            ),
        }

    def _check_adam(self) -> None:
        eager, truth = self._copied(torch.float32), self._copied(torch.float64)
        before = self._copied(torch.float64)
        # What moves a weight, were none of its terms to cancel another.
        sizes = self._copied(torch.float64)
        torch._foreach_zero_(sizes["params"])
        torch._foreach_abs_(sizes["grads"] + sizes["exp_avgs"])
        ops.adam_reference(**(sizes | {"found_inf": None}))
        ops.adam_reference(**eager)
        ops.adam_reference(**truth)
        ops.adam(**self.options)
        for name in ("params", "exp_avgs", "exp_avg_sqs", "steps"):
            lists = (self.options[name], eager[name], truth[name], before[name], sizes[name])
            for ours, theirs, right, old, size in zip(*lists, strict=True):
                # A root, two divisions and a product are rounded on a weight's way.
                terms = max((4 if name == "params" else 1) * largest(size), largest(old))
                assert_within_budget(ours, theirs, right, name, terms=terms)
        for half, param in zip(self.options["halves"] or (), self.options["params"], strict=False):
            assert half is None or torch.equal(half, param.to(half.dtype)), "a copy"

    def _copied(self, dtype: torch.dtype) -> dict[str, Any]:
        groups = ("params", "grads", "exp_avgs", "exp_avg_sqs")
        copied = {name: [t.clone().to(dtype) for t in self.options[name]] for name in groups}
        steps = [step.clone() for step in self.options["steps"]]
        return self.options | copied | {"steps": steps, "halves": None}
