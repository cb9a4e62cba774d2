# SPDX-License-Identifier: MIT
"""The raw CUDA op generator_loss against formulas in float64, and in a captured graph."""

from __future__ import annotations

import pytest
import raw_ops
import torch
from raw_ops import accumulator, assert_close, poisoned
from torch import Tensor

pytestmark = pytest.mark.gpu

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
WEIGHTS = (10.0, 5.0, 2.5, 0.7)
# Predictions of A and B, pictures of A and B: one value, tails of a vector, several chunks.
SIZES = [(1, 2, 3, 1), (900, 900, 12288, 12288), (30, 4097, 4111, 8200), (16, 16, 4096, 8192)]


class Call:
    """Operands of one call, the tensors it writes, and the truth."""

    def __init__(self, sizes, dtype, *, tanh, target=None, offset=0, identity=True, scale=None):
        generator = torch.Generator().manual_seed(sum(sizes))
        acc = accumulator(dtype)

        def random(numel, to, spread=1.0):
            values = torch.randn(numel + offset, generator=generator, dtype=torch.float64) * spread
            return values.to(raw_ops.device).to(to)[offset:]

        pred_a, pred_b, image_a, image_b = sizes
        of_made = (pred_a, pred_b, image_a, image_b, image_b, image_a)
        self.made = [random(numel, dtype) for numel in of_made]
        if not identity:
            self.made[4:] = [None, None]
        self.real = [random(numel, target or dtype, 0.5) for numel in (image_a, image_b)]
        self.weights = torch.tensor(WEIGHTS, dtype=acc, device=raw_ops.device)
        self.scale = None if scale is None else torch.full((), scale, device=raw_ops.device).to(acc)
        self.tanh = tanh
        self.losses, self.total = poisoned((6,), acc), poisoned((), acc)
        self.grads = [None if m is None else self._like(m, offset) for m in self.made]
        size = raw_ops.ops.generator_loss_workspace(*sizes)
        self.workspace = poisoned((size,), acc)

    def _like(self, x: Tensor, offset: int) -> Tensor:
        return poisoned((x.numel() + offset,), x.dtype)[offset:]

    def forward(self, grads=True) -> None:
        wanted = self.grads if grads else [None] * 6
        raw_ops.ops.generator_loss_fwd(
            *self.made, *self.real, self.weights, self.scale, self.tanh, self.losses, self.total,
            *wanted, self.workspace,
        )  # fmt: skip

    def truth(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        leaves = [None if m is None else m.double().requires_grad_() for m in self.made]
        real_a, real_b = (r.double() for r in self.real)
        terms = [(leaf - 1).square().mean() for leaf in leaves[:2]]
        originals = (real_a, real_b, real_b, real_a)
        for leaf, original, weight in zip(leaves[2:], originals, WEIGHTS, strict=True):
            if leaf is None:
                terms.append(torch.zeros_like(terms[0]))
                continue
            value = leaf.tanh() if self.tanh else leaf
            terms.append(weight * (value - original).abs().mean())
        losses = torch.stack(terms)
        total = losses.sum() * (1.0 if self.scale is None else self.scale.double())
        given = [leaf for leaf in leaves if leaf is not None]
        return losses, total, list(torch.autograd.grad(total, given))

    def check(self) -> None:
        self.forward()
        losses, total, grads = self.truth()
        assert_close(self.losses, None, losses, "losses", ulps=8)
        assert_close(self.total, None, total, "total", ulps=8)
        ours = [grad for grad in self.grads if grad is not None]
        for grad, true in zip(ours, grads, strict=True):
            assert_close(grad, None, true, "gradient", ulps=4)
        upstream = torch.full((), 1.5, dtype=self.losses.dtype, device=raw_ops.device)
        given = list(self.grads)
        given[1] = None  # not asked for
        scaled = [None if grad is None else grad.clone().fill_(float("nan")) for grad in given]
        raw_ops.ops.generator_loss_bwd(upstream, *given, *scaled)
        for grad, out in zip(given, scaled, strict=True):
            if out is not None:
                assert torch.equal(out, (grad.to(upstream.dtype) * upstream).to(grad.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("tanh", [False, True])
def test_generator_loss(dtype, sizes, tanh):
    Call(sizes, dtype, tanh=tanh).check()
    Call(sizes, dtype, tanh=tanh, scale=4.0).check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_generator_loss_of_unaligned_memory_and_wide_originals(dtype):
    wide = accumulator(dtype)
    Call(SIZES[2], dtype, tanh=True, offset=1).check()
    Call(SIZES[2], dtype, tanh=True, target=wide, identity=False).check()
    Call(SIZES[3], dtype, tanh=False, target=wide).check()


def test_generator_loss_without_gradients_is_the_same():
    first, second = (Call(SIZES[1], torch.bfloat16, tanh=True) for _ in range(2))
    first.forward()
    second.forward(grads=False)
    assert torch.equal(first.losses, second.losses) and torch.equal(first.total, second.total)
    assert all(grad.isnan().all() for grad in second.grads)


def test_generator_loss_in_a_captured_graph():
    if raw_ops.device != "cuda":
        pytest.skip("graphs are a GPU's")
    call = Call(SIZES[1], torch.bfloat16, tanh=True)
    call.forward()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call.forward()
    for made in call.made:
        made.normal_()
    call.weights.mul_(2)
    graph.replay()
    call.weights.div_(2)
    losses, _, _ = call.truth()
    doubled = losses * torch.tensor([1, 1, 2, 2, 2, 2], device="cuda")
    assert_close(call.losses, None, doubled, "losses", ulps=8)
