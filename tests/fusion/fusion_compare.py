# SPDX-License-Identifier: MIT
"""Compare an accelerated network with the plain one: results and every gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from numerics import EPS
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cyclegan_fast import accelerate, models
from cyclegan_fast.fusion.accelerate import PlannedForward
from cyclegan_fast.fusion.modules import installed

Call = Callable[[nn.Module, Tensor], Any]


def planned(net: nn.Module) -> dict[str, PlannedForward]:
    """The plans in a network, by the path of their module."""
    found = {path: installed(module) for path, module in net.named_modules()}
    return {path: f for path, f in found.items() if isinstance(f, PlannedForward)}


def run(net: nn.Module, x: Tensor, call: Call | None = None, seed: int = 0) -> dict[str, Tensor]:
    """Results, and gradients of the input and all parameters for random upstream gradients."""
    net.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    torch.manual_seed(seed)
    results = pytree.tree_leaves(call(net, x) if call else net(x))
    results = [result for result in results if isinstance(result, Tensor)]
    generator = torch.Generator().manual_seed(seed + 1)
    upstream = [torch.randn(r.shape, generator=generator).to(r) for r in results]
    torch.autograd.backward(results, upstream)
    values = {f"result {i}": result.detach() for i, result in enumerate(results)}
    values["gradient of x"] = x.grad
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            values[f"gradient of {name}"] = parameter.grad.detach().clone()
    return values


def dead_biases(net: nn.Module) -> set[str]:
    """Names of the parameters that no plan of the network reads."""
    return {
        f"{path}.{name}" if path else name
        for path, forward in planned(net).items()
        for plan in forward.plans
        for name in plan.dead_biases
    }


def assert_equal_to_plain(
    net: nn.Module, x: Tensor, call: Call | None = None, tolerance: float = 1e-10, **options: Any
) -> nn.Module:
    """Fail unless the accelerated network is the plain one in float64; return it accelerated."""
    plain = copy.deepcopy(net).double()
    fast = accelerate(copy.deepcopy(net).double(), **options)
    assert list(planned(fast)) == [""], "not accelerated as a whole"
    truth, ours = run(plain, x.double(), call), run(fast, x.double(), call)
    assert not any(forward.plain_calls for forward in planned(fast).values())
    dead = {f"gradient of {name}" for name in dead_biases(fast)}
    assert set(ours) == set(truth) - dead, "a gradient is missing, or one too many"
    for name, value in ours.items():
        largest = truth[name].abs().max().item()
        torch.testing.assert_close(
            value, truth[name], rtol=0, atol=tolerance * max(1.0, largest), msg=f"{name} differs"
        )
    for name in dead:  # what is left out is rounding noise
        assert truth[name].abs().max().item() < 1e-10 * truth["gradient of x"].abs().max().item()
    return fast


def assert_within_budget_of_plain(
    net: nn.Module, x: Tensor, dtype: torch.dtype, call: Call | None = None
) -> None:
    """Fail unless the accelerated network errs at most twice as much as the plain one, in dtype.

    A network has thousands of kinks, and at each a rounding turns a gradient on or off, so it is
    the root of the mean square that is compared, over a tensor and several inputs, not the largest
    element.
    """
    nets = {
        "truth": copy.deepcopy(net).double(),
        "eager": copy.deepcopy(net).to(dtype),
        "ours": accelerate(copy.deepcopy(net).to(dtype)),
    }
    runs: dict[str, list[dict[str, Tensor]]] = {name: [] for name in nets}
    for seed, image in enumerate((x, -x, x.flip(-1), 2 * x, x.roll(3, -2), x - 1)):
        for name, copied in nets.items():
            like = torch.float64 if name == "truth" else dtype
            runs[name].append(run(copied, image.to(like), call, seed))
    for name in runs["ours"][0]:
        truth, eager, ours = (torch.stack([run[name] for run in runs[who]]) for who in nets)
        assert ours.dtype == eager.dtype, f"{name}: dtype {ours.dtype}, eager has {eager.dtype}"
        bound = 2 * _error(eager, truth) + 2 * EPS[dtype] * truth.square().mean().sqrt()
        error = _error(ours, truth)
        assert error <= bound, f"{name}: error {error:.3g} above the budget {bound:.3g}"


def _error(value: Tensor, truth: Tensor) -> Tensor:
    assert not value.isnan().any()
    return (value.double() - truth.double()).square().mean().sqrt()


def network(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    net = models.ResnetGenerator(3, 3, 4, n_blocks=1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    return net.double()


X = torch.randn(2, 3, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def assert_same(ours, expected, tolerance=1e-10):
    for name, value in ours.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance, msg=name)
