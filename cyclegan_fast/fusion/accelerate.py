# SPDX-License-Identifier: MIT
"""Put plans into a network, and take them out again."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cyclegan_fast._version import __version__
from cyclegan_fast.fusion import calls
from cyclegan_fast.fusion.dead_bias import DEAD_BIAS_GRADS, with_zero_gradients
from cyclegan_fast.fusion.guard import bind, make_guards
from cyclegan_fast.fusion.lower import make_plan
from cyclegan_fast.fusion.modules import InstanceForward, installed, plain_forward, special
from cyclegan_fast.fusion.purity import Untraceable
from cyclegan_fast.fusion.steps import Guard, Plan
from cyclegan_fast.fusion.survey import survey
from cyclegan_fast.fusion.walk import walk, without_tanh

MEMORY_FORMATS = ("channels_last", "preserve")
# A network that changes with every call is not worth tracing every time.
MOST_PLANS = 16
MOST_RENEWALS = 32

Net = TypeVar("Net", bound=nn.Module)


def accelerate(
    net: Net, *, memory_format: str = "channels_last", dead_bias_grad: str = "none"
) -> Net:
    """Let a network run on the package's fused ops, in place.

    Patterns of instance norm, activation, residual addition and reflection pad are found in any
    module, whoever wrote it, and so are convolutions with what pads them by reflection and a tanh
    after them; other convolutions and everything unknown run as they did. Parameters,
    buffers, state-dict keys, hooks and classes stay untouched: only the instance's ``forward`` is
    replaced, by one that walks a plan. The network can be pickled, copied, moved, compiled,
    switched between train and eval, and changed: when its modules, their hooks or the attributes
    that forward reads have changed (not global variables), it is looked at again.

    Args:
        net: any module. Where its own forward cannot be traced, its children are accelerated.
        memory_format: "channels_last" converts 4-D inputs to it and results back (dropout then
            draws its mask in another order); "preserve" leaves layout alone.
        dead_bias_grad: what happens to the bias of a convolution whose result goes into an
            instance norm and nowhere else: it changes nothing, is not read, and its gradient, which
            is rounding noise otherwise, is "none" or exactly "zero". DistributedDataParallel waits
            for a gradient of every parameter and needs "zero" (or find_unused_parameters=True).

    Returns:
        The same object.

    Raises:
        TypeError: net is no module.
        ValueError: unknown memory_format or dead_bias_grad.

    Values and first derivatives equal the plain network's to rounding; a second derivative raises
    DoubleBackwardError. See :func:`restore` and :func:`explain`.
    """
    _check_module("accelerate", net)
    for name, value, choices in (
        ("memory_format", memory_format, MEMORY_FORMATS),
        ("dead_bias_grad", dead_bias_grad, DEAD_BIAS_GRADS),
    ):
        if value not in choices:
            raise ValueError(
                f"accelerate: {name} must be one of {', '.join(choices)}, got {value!r}"
            )
    restore(net)
    for part in survey(net, memory_format):
        if part.plan is not None and part.plan.fused:
            forward = PlannedForward(part.module, memory_format, dead_bias_grad)
            forward.install(part.plan, part.form)
    return net


def restore(net: Net) -> Net:
    """Undo :func:`accelerate` on a network and everything in it.

    Args:
        net: any module, accelerated or not.

    Returns:
        The same object.

    Raises:
        TypeError: net is no module.
    """
    _check_module("restore", net)
    for module in net.modules():
        replication = module.__dict__.get("_replicate_for_data_parallel")
        if isinstance(replication, Replication):
            replication.planned.remove()
    return net


def plan_of(net: nn.Module, memory_format: str = "channels_last") -> Plan:
    """Return the plan of a network called with its required arguments, without installing it.

    Args:
        net: any module, accelerated or not.
        memory_format: see :func:`accelerate`.

    Raises:
        Untraceable: with the reason.
    """
    return make_plan(net, *calls.usual_form(plain_forward(net)), memory_format)


@dataclass(frozen=True)
class Refusal:
    """Why there is no plan for a form of call, and for how long that holds."""

    reason: str
    guards: tuple[Guard, ...]


class PlannedForward(InstanceForward):
    """Owns an instance's forward, which walks plans, one for each form of call.

    Attributes:
        net: the network whose forward it is.
        previous: an own forward that the instance had before, or None.
        memory_format: see :func:`accelerate`.
        dead_bias_grad: see :func:`accelerate`.
        plain_calls: reason -> number of calls that ran the network's plain forward.
    """

    def __init__(self, net: nn.Module, memory_format: str, dead_bias_grad: str) -> None:
        self.net = net
        self.previous = net.__dict__.get("forward")
        self.memory_format = memory_format
        self.dead_bias_grad = dead_bias_grad
        self.plain_calls: dict[str, int] = {}
        self._plans: dict[Any, Plan | Refusal] = {}
        self._renewals = 0
        self._removed = False
        self._names = calls.names(plain_forward(net))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the network's own forward computes."""
        args, kwargs = calls.positional(self._names, args, kwargs)
        plan, modules = self._valid_plan(args, kwargs)
        if isinstance(plan, str):
            return self._plainly(plan, args, kwargs)
        result = walk(plan, modules, calls.tensors(args, kwargs))
        if self.dead_bias_grad == "zero" and plan.dead_biases:
            result = with_zero_gradients(result, modules, plan.dead_biases)
        return result

    def tanhless(self, x: Tensor) -> tuple[Plan, dict[str, nn.Module]] | None:
        """Return the plan up to the tanh that the network ends in, or None; see `ends_in_tanh`."""
        if self.dead_bias_grad != "none" or special(self.net):
            return None
        plan, modules = self._valid_plan((x,), {})
        short = None if isinstance(plan, str) else without_tanh(plan, modules)
        return None if short is None else (short, modules)

    def whole(self, x: Tensor) -> tuple[Plan, dict[str, nn.Module]] | str:
        """Return the plan for a call with x alone, for who walks it himself; or why he must not."""
        if self.dead_bias_grad != "none":
            return "biases that do nothing are to have gradients of zero"
        reason = special(self.net)
        if reason:
            return reason
        plan, modules = self._valid_plan((x,), {})
        return plan if isinstance(plan, str) else (plan, modules)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state.pop("version") != __version__:
            state["_plans"] = {}  # another version's plans; they are made again when called
        self.__dict__.update(state)

    def install(self, plan: Plan, form: calls.Form) -> None:
        """Become the network's forward, with a first plan."""
        self._plans[calls.key(*form)] = plan
        self.net.forward = self.forward  # type: ignore[method-assign]
        self.net._replicate_for_data_parallel = Replication(self)  # type: ignore[method-assign]

    def remove(self) -> None:
        """Give the network its forward back."""
        del self.net.__dict__["_replicate_for_data_parallel"]
        if installed(self.net) is not self:
            self._removed = True  # somebody has wrapped it, and will go on calling it
            return
        del self.net.__dict__["forward"]
        if self.previous is not None:
            self.net.forward = self.previous

    def moved_to(self, net: nn.Module) -> PlannedForward:
        """Return the same for a copy of the network that shares its structure."""
        other = copy.copy(self)
        other.net = net
        return other

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans made so far, one for each form of call."""
        return tuple(plan for plan in self._plans.values() if isinstance(plan, Plan))

    def _valid_plan(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Plan | str, dict[str, nn.Module]]:
        """Return a plan that holds now, and the modules it names; or why there is none."""
        if self._removed:
            return "restore() was called", {}
        if nn.modules.module._has_any_global_hook():
            return "global module hooks are set, which every module's call must run", {}
        key = calls.key(args, kwargs)
        if key is None:
            return "an argument is neither a tensor nor a plain value", {}
        known = self._plans.get(key)
        modules = None if known is None else bind(self.net, known.guards)
        if known is not None and modules is not None:
            return known.reason if isinstance(known, Refusal) else known, modules
        if torch.compiler.is_compiling():
            return "a new form of call, or a changed network, met torch.compile first", {}
        plan = self._new_plan(key, args, kwargs)
        return plan, {} if isinstance(plan, str) else bind(self.net, plan.guards) or {}

    def _new_plan(
        self, key: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Plan | str:
        if key in self._plans:
            self._renewals += 1
            del self._plans[key]
        if self._renewals > MOST_RENEWALS:
            return f"the network changed more than {MOST_RENEWALS} times"
        if len(self._plans) >= MOST_PLANS:
            return f"it is called in more than {MOST_PLANS} forms"
        try:
            plan = make_plan(self.net, *calls.form(args, kwargs), self.memory_format)
        except Untraceable as found:
            reason = f"its forward cannot be traced: {found}"
            self._plans[key] = Refusal(reason, make_guards(self.net, set()))
            return reason
        self._plans[key] = plan
        return plan

    def _plainly(self, reason: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not torch.compiler.is_compiling():
            self.plain_calls[reason] = self.plain_calls.get(reason, 0) + 1
        if self.previous is not None:
            return self.previous(*args, **kwargs)
        return type(self.net).forward(self.net, *args, **kwargs)


class Replication:
    """Makes the copies that DataParallel asks a module for run on their own parameters."""

    def __init__(self, planned: PlannedForward) -> None:
        self.planned = planned

    def __call__(self) -> nn.Module:
        """Return a replica whose forward is its own."""
        net = self.planned.net
        replica = type(net)._replicate_for_data_parallel(net)
        if installed(net) is self.planned:
            replica.__dict__["forward"] = self.planned.moved_to(replica).forward
        return replica


def _check_module(op: str, net: Any) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f"{op}: net must be a torch.nn.Module, got {type(net).__name__}")
