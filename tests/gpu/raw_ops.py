# SPDX-License-Identifier: MIT
"""Calls of the raw compiled ops with poisoned outputs, and what they must give."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from numerics import EPS, max_error
from torch import Tensor

ACTS = ("none", "relu", "leaky_relu")
SLOPE = 0.2

device = "cuda"
ops = torch.ops.cyclegan_fast_C


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def poisoned(shape, dtype: torch.dtype, layout: str = "contiguous") -> Tensor:
    """An output that nobody has written yet, and that a forgotten element would betray."""
    x = torch.full(shape, float("nan"), dtype=dtype, device=device)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        # Unlike x.contiguous(), right where sizes of one make the strides ambiguous.
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return x.contiguous()


def mirrored(size: int, pad: int) -> Tensor:
    """Which pixel of a side stands at each position of the padded side.

    Indexing by it pads. The deterministic backward of reflection_pad2d in some CUDA builds of
    PyTorch reads out of bounds (pytorch#193694), and a truth must be true.
    """
    position = torch.arange(-pad, size + pad, device=device).abs()
    return (size - 1) - ((size - 1) - position).abs()


def interior(x: Tensor, layout: str, pad: int = 1) -> Tensor:
    """x as the interior of a padded buffer whose border holds nan."""
    n, c, h, w = x.shape
    buffer = poisoned((n, c, h + 2 * pad, w + 2 * pad), x.dtype, layout)
    view = buffer[:, :, pad : pad + h, pad : pad + w]
    view.copy_(x)
    return view


def assert_close(
    ours: Tensor, eager: Tensor | None, truth: Tensor, name: str, ulps=2.0, terms=0.0
) -> None:
    """Error at most twice eager's and two units in the last place at the largest magnitude.

    For float64 the truth is no more exact than ours: 2^10 units stand for both, at the magnitude
    of the terms where these may cancel.
    """
    bound = ulps * EPS[ours.dtype] * (truth.abs().max().item() if truth.numel() else 0.0)
    # Where terms cancel, their rounding in the accumulator stays.
    bound = max(bound, ulps * EPS[accumulator(ours.dtype)] * terms)
    if ours.dtype == torch.float64:
        bound *= 512
    elif eager is not None:
        bound += 2 * max_error(eager, truth)
    bound += torch.finfo(ours.dtype).smallest_normal * EPS[ours.dtype]  # float16 ends at 6e-8
    error = max_error(ours, truth)
    assert error <= bound, f"{name}: error {error:.3g} above {bound:.3g}"


@dataclass
class NormCase:
    """One call of instance_norm_act, forward and backward."""

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    layout: str = "channels_last"
    act: str = "relu"
    pad: int = 0
    affine: bool = False
    residual: bool = False
    grad_y: bool = True
    grad_skip: bool = False
    grad_residual: bool = False
    offset: float = 3.0
    foreign: bool = False  # residual and grad_skip in the other layout
    operands: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, c, h, w = self.shape
        generator = torch.Generator().manual_seed(n + 10 * c + 100 * h + 1000 * w + self.pad)

        def random(*shape, offset=0.0, dtype=self.dtype):
            values = torch.randn(shape, generator=generator, dtype=torch.float64) + offset
            return values.to(device).to(dtype)

        acc = accumulator(self.dtype)
        given: dict[str, Tensor | None] = {"x": random(*self.shape, offset=self.offset)}
        given["weight"] = random(c, offset=1.0, dtype=acc) if self.affine else None
        given["bias"] = random(c, dtype=acc) if self.affine else None
        given["residual"] = random(*self.shape) if self.residual else None
        padded = (n, c, h + 2 * self.pad, w + 2 * self.pad)
        given["grad_y"] = random(*padded) if self.grad_y else None
        given["grad_skip"] = random(*self.shape) if self.grad_skip else None
        # A rounding may decide on which side of the kink z falls: no gradient arrives there.
        x = given["x"].double()
        z = self._normalised(x, given["weight"], given["bias"])[0]
        far = x.mean((2, 3), keepdim=True).abs() / (
            x.std((2, 3), correction=0, keepdim=True) + 1e-30
        )
        kink = z.abs() < 16 * EPS[acc] * (1 + far)
        if self.grad_y:
            given["grad_y"][self._padded(kink.to(self.dtype)) > 0] = 0
        if self.grad_skip:
            given["grad_skip"][kink] = 0
        self.operands = given

    def _normalised(self, x, weight, bias):
        mean = x.mean((2, 3), keepdim=True)
        rstd = (x.var((2, 3), correction=0, keepdim=True) + 1e-5).rsqrt()
        z = (x - mean) * rstd
        if weight is not None:
            z = z * weight.to(z.dtype)[:, None, None] + bias.to(z.dtype)[:, None, None]
        return z, mean, rstd

    def _padded(self, x: Tensor) -> Tensor:
        rows, columns = (mirrored(size, self.pad) for size in self.shape[2:])
        return x[:, :, rows][:, :, :, columns]

    def expected(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Every output by plain PyTorch in dtype; the statistics in float64's sense."""
        given = {k: None if v is None else v.to(dtype) for k, v in self.operands.items()}
        x = given["x"].clone().requires_grad_()
        n, c = self.shape[:2]
        z, mean, rstd = self._normalised(x, None, None)
        if dtype != torch.float64 and self.shape[2] * self.shape[3] > 1:
            z = F.instance_norm(x)
        # One scale and one shift per plane, so that their gradients are the sums asked for.
        scale = torch.ones(n, c, 1, 1, dtype=dtype, device=device)
        shift = torch.zeros_like(scale)
        if self.affine:
            scale, shift = (scale * given[k][:, None, None] for k in ("weight", "bias"))
            shift = shift.contiguous()
        scale.requires_grad_()
        shift.requires_grad_()
        z = z * scale + shift
        s = {"none": lambda: z, "relu": z.relu, "leaky_relu": lambda: F.leaky_relu(z, SLOPE)}
        s = s[self.act]()
        if self.residual:
            s = s + given["residual"]
        y = self._padded(s)
        outputs = [
            (o, g) for o, g in ((y, given["grad_y"]), (s, given["grad_skip"])) if g is not None
        ]
        grads = torch.autograd.grad(
            [o for o, _ in outputs], [x, s, shift, scale], [g for _, g in outputs]
        )
        result = {"y": y, "mean": mean, "rstd": rstd, "grad_x": grads[0], "grad_residual": grads[1]}
        result["sums"] = torch.stack(grads[2:])
        result |= {k: result[k].reshape(n, c) for k in ("mean", "rstd")}
        result["sums"] = result["sums"].reshape(2, n, c)
        return {k: v.detach() for k, v in result.items()}

    def allocate(self) -> dict[str, Tensor]:
        """Inputs as the op takes them, and outputs that nobody has written yet."""
        n, c, h, w = self.shape
        acc = accumulator(self.dtype)
        other = {"contiguous": "channels_last", "channels_last": "contiguous"}[self.layout]
        strided = other if self.foreign else self.layout
        t: dict[str, Tensor | None] = dict(self.operands)
        for k in ("x", "grad_y"):
            t[k] = None if t[k] is None else laid_out(t[k], self.layout)
        for k in ("residual", "grad_skip"):
            t[k] = None if t[k] is None else interior(t[k], strided)
        t["y"] = laid_out(
            poisoned((n, c, h + 2 * self.pad, w + 2 * self.pad), self.dtype), self.layout
        )
        t["mean"], t["rstd"] = poisoned((n, c), acc), poisoned((n, c), acc)
        t["grad_x"] = laid_out(poisoned(self.shape, self.dtype), self.layout)
        t["grad_residual"] = t["grad_x"].clone() if self.grad_residual else None
        t["sums"] = poisoned((2, n, c), acc)
        last = (
            t["x"].is_contiguous(memory_format=torch.channels_last) and not t["x"].is_contiguous()
        )
        size = ops.instance_norm_act_workspace(n, c, h, w, last, "cuda")
        t["workspace"] = poisoned((size,), acc)
        return t

    def forward(self, t: dict[str, Tensor]) -> None:
        ops.instance_norm_act_fwd(
            *(t[k] for k in ("x", "weight", "bias", "residual")),
            ACTS.index(self.act), SLOPE, self.pad, 1e-5,
            *(t[k] for k in ("y", "mean", "rstd", "workspace")),
        )  # fmt: skip

    def backward(self, t: dict[str, Tensor]) -> None:
        ops.instance_norm_act_bwd(
            *(t[k] for k in ("grad_y", "grad_skip", "x", "weight", "bias", "mean", "rstd")),
            ACTS.index(self.act), SLOPE, self.pad,
            *(t[k] for k in ("grad_x", "grad_residual", "sums", "workspace")),
        )  # fmt: skip

    def run(self) -> dict[str, Tensor]:
        """Forward and backward, the workspace poisoned before each."""
        t = self.allocate()
        self.forward(t)
        again = torch.full_like(t["y"], float("nan"))
        ops.instance_norm_act_apply(
            *(t[k] for k in ("x", "weight", "bias", "residual", "mean", "rstd")),
            ACTS.index(self.act), SLOPE, self.pad, again,
        )  # fmt: skip
        # The same arithmetic on the same statistics, so the same bits; nan equals nan here.
        assert torch.equal(again.nan_to_num(7.0), t["y"].nan_to_num(7.0)), "statistics given"
        t["workspace"].fill_(float("nan"))
        self.backward(t)
        return t

    def check(self) -> None:
        """Every output against float64, within the budget that eager sets."""
        self.compare(self.run())

    def compare(self, t: dict[str, Tensor]) -> None:
        """What a run has written, as check."""
        truth = self.expected(torch.float64)
        eager = self.expected(self.dtype)
        for name in ("y", "grad_x") + ("grad_residual",) * self.grad_residual:
            terms = 8 * truth["rstd"].max().item() if name == "grad_x" else 0.0
            assert_close(t[name], eager[name], truth[name], name, terms=terms)
        # Statistics and sums are kept in the accumulator's precision: no eager to compare with.
        size = truth["mean"].abs().max().item() + 1
        assert_close(t["mean"] / size, None, truth["mean"] / size, "mean", ulps=4)
        assert_close(t["rstd"], None, truth["rstd"], "rstd", ulps=8)
        # A sum cancels: its rounding errors are those of the sum of magnitudes; and the rounding
        # of the mean, far from zero, enters sum dz * xhat times sum dz.
        pixels = self.shape[2] * self.shape[3]
        error = max_error(t["sums"], truth["sums"]) / (1 + pixels)
        mean = (truth["mean"] * truth["rstd"]).abs().max().item()
        allowed = 1 + mean * truth["sums"][0].abs().max().item() / pixels
        allowed *= 4 * EPS[accumulator(self.dtype)]
        assert error <= allowed, f"sums: error {error:.3g} per term above {allowed:.3g}"


def run_pair(cases: tuple[NormCase, NormCase], pairs: list[dict[str, Tensor]]) -> None:
    """Run two cases of the same sizes and options forward and backward, both in one call."""
    case = cases[0]

    def both(*names):
        return ([t[name] for t in pairs] for name in names)

    none = pairs[0]["x"].new_empty(0)
    residuals = [none if t["grad_residual"] is None else t["grad_residual"] for t in pairs]

    ops.instance_norm_act_fwd_pair(
        *both("x", "weight", "bias", "residual"),
        ACTS.index(case.act), SLOPE, case.pad, 1e-5,
        *both("y", "mean", "rstd", "workspace"),
    )  # fmt: skip
    for t in pairs:
        t["workspace"].fill_(float("nan"))
    ops.instance_norm_act_bwd_pair(
        *both("grad_y", "grad_skip", "x", "weight", "bias", "mean", "rstd"),
        ACTS.index(case.act), SLOPE, case.pad,
        *both("grad_x"), residuals, *both("sums", "workspace"),
    )  # fmt: skip
