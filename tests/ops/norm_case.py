# SPDX-License-Identifier: MIT
"""One call of instance_norm_act with random operands, its truth and what eager PyTorch makes."""

from __future__ import annotations

import torch
from numerics import EPS, assert_within_budget
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import instance_norm_act, instance_norm_act_reference
from cyclegan_fast.ops.instance_norm_act import instance_norm_act_and_interior

LAYOUTS = ["contiguous", "channels_last", "sliced"]


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values in another layout."""
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        wide = torch.full((*x.shape[:3], 2 * x.shape[3] + 1), float("nan"), device=x.device)
        wide = wide.to(x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    return x.contiguous()


def _sliced_reference(*args, pad, **options) -> tuple[Tensor, Tensor]:
    y = instance_norm_act_reference(*args, pad=pad, **options)
    height, width = y.shape[2:]
    return y, y[:, :, pad : height - pad, pad : width - pad]


WITH_INTERIOR = {
    instance_norm_act: instance_norm_act_and_interior,
    instance_norm_act_reference: _sliced_reference,
}


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def on_cpu(result: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """The same value and gradients, on the CPU."""
    y, gradients = result
    return y.cpu(), {name: gradient.cpu() for name, gradient in gradients.items()}


class Case:
    """Random operands of one call, its truth in float64 and eager's answer in the dtype."""

    def __init__(
        self,
        shape,
        dtype,
        layout,
        device,
        *,
        act,
        pad,
        affine,
        residual,
        interior=False,
        mean=3.0,
    ):
        generator = torch.Generator().manual_seed(1000 * sum(shape) + 10 * len(act) + pad)
        self.options = {"act": act, "pad": pad, "negative_slope": 0.2}
        self.act = act
        c = shape[1]

        def random(*size, offset=0.0):
            # In float64: values of float32 would hide that a kernel of float64 rounds to them.
            values = torch.randn(size, generator=generator, dtype=torch.float64) + offset
            return values.to(device).to(dtype)

        self.operands: dict[str, Tensor] = {"x": laid_out(random(*shape, offset=mean), layout)}
        if affine:
            self.operands["weight"] = random(c, offset=1.0)
            self.operands["bias"] = random(c)
        if residual:
            # As in a chain of blocks: the interior of an earlier padded output.
            n, _, h, w = shape
            padded = laid_out(random(n, c, h + 2, w + 2), layout.replace("sliced", "contiguous"))
            self.operands["residual"] = padded[:, :, 1:-1, 1:-1]
        self.grads = [random(shape[0], c, shape[2] + 2 * pad, shape[3] + 2 * pad)]
        if interior:  # as the next block hands it back: dense or not, in either layout
            self.grads.append(laid_out(random(*shape), LAYOUTS[len(act) % 3]))

    def run(self, function, dtype=None, device=None) -> tuple[Tensor, dict[str, Tensor]]:
        """Value and gradients of the function, in another dtype or on another device if asked."""
        leaves = {
            name: operand.detach().to(device, dtype or operand.dtype).requires_grad_()
            for name, operand in self.operands.items()
        }
        if len(self.grads) == 1:
            outputs = (function(**leaves, **self.options),)
        else:
            outputs = WITH_INTERIOR[function](**leaves, **self.options)
        y = outputs[0]
        gradients = torch.autograd.grad(
            outputs, list(leaves.values()), [grad.to(y) for grad in self.grads]
        )
        return y, dict(zip(leaves, gradients, strict=True))

    def check(self) -> None:
        dtype = self.operands["x"].dtype
        y, gradients = on_cpu(self.run(instance_norm_act))
        # On the CPU: the deterministic reflection_pad2d backward of some CUDA builds of PyTorch
        # reads out of bounds (pytorch#193694), and a truth must be true.
        truth, true_gradients = self.run(instance_norm_act_reference, torch.float64, "cpu")
        eager, eager_gradients = self.run(instance_norm_act_reference, device="cpu")
        assert y.dtype == dtype
        assert_within_budget(y, eager, truth, "y")
        where, eager_where, terms = self.away_from_kinks()
        of_mean = self.rounding_of_the_mean(true_gradients)
        for name, gradient in gradients.items():
            at_x = name == "x"
            assert_within_budget(
                gradient,
                eager_gradients[name],
                true_gradients[name],
                f"gradient of {name}",
                where=where if at_x else None,
                eager_where=eager_where if at_x else None,
                terms=terms if at_x else of_mean if name == "weight" else 0.0,
            )

    def rounding_of_the_mean(self, true_gradients: dict[str, Tensor]) -> float:
        """What a mean's last place is worth in the gradient of weight, rstd sum dz (x - mean)."""
        if "bias" not in true_gradients or not self.operands["x"].numel():
            return 0.0
        x = self.operands["x"].detach().cpu().double()
        rstd = (x.var((2, 3), correction=0) + 1e-5).rsqrt()
        return (x.mean((2, 3)) * rstd * true_gradients["bias"]).abs().max().item()

    def away_from_kinks(self) -> tuple[Tensor, Tensor, float]:
        """Elements to compare in ours, in eager, and the size of the terms that cancel in dx."""
        x, weight, bias = (
            None if operand is None else operand.detach().cpu().double()
            for operand in map(self.operands.get, ("x", "weight", "bias"))
        )
        everywhere = torch.ones_like(x, dtype=torch.bool)
        if not x.numel():
            return everywhere, everywhere, 0.0
        rstd = (x.var((2, 3), correction=0, keepdim=True) + 1e-5).rsqrt()
        scale = rstd if weight is None else rstd * weight[:, None, None].abs()
        largest = sum(grad.cpu().double().abs().amax((2, 3), keepdim=True) for grad in self.grads)
        terms = (largest * scale).max().item()
        if self.act == "none":
            return everywhere, everywhere, terms
        z = instance_norm_act_reference(x, weight, bias, act="none").abs()
        dtype = self.operands["x"].dtype
        eager_where = z > 8 * EPS[dtype]
        if backend.policy() == "reference":  # which is eager PyTorch
            return eager_where, eager_where, terms
        # The fused kernels keep z in the accumulator's dtype; a mean far from zero costs it digits.
        digits = EPS[_accumulator(dtype)] * (1 + x.mean((2, 3), keepdim=True).abs() * scale)
        return z > 64 * digits, eager_where, terms
