# SPDX-License-Identifier: MIT
"""Every way to run the iteration that is timed: upstream, plain PyTorch, torch.compile, ours."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from cyclegan_fast.benchmark import upstream
from cyclegan_fast.benchmark.ours import OursIteration
from cyclegan_fast.benchmark.plain import PlainIteration, Setup
from cyclegan_fast.benchmark.ratios import AS_SHIPPED, UPSTREAM

EAGER = {
    "cpu": {
        AS_SHIPPED["cpu"]: Setup(),
        "plain fp32 channels_last": Setup(channels_last=True),
        "plain bf16": Setup(precision="bf16"),
        "plain bf16 channels_last": Setup(precision="bf16", channels_last=True),
    },
    "cuda": {
        "plain fp32, TF32 off": Setup(precision="fp32 no tf32"),
        AS_SHIPPED["cuda"]: Setup(),
        "plain bf16 channels_last": Setup(precision="bf16", channels_last=True),
        "plain bf16 channels_last, CUDA graph": Setup("bf16", channels_last=True, graph=True),
    },
}
COMPILE = {
    "cpu": {"torch.compile bf16": Setup("bf16", channels_last=True, compile_mode="default")},
    "cuda": {
        "torch.compile": Setup("bf16", True, compile_mode="default"),
        "torch.compile reduce-overhead": Setup("bf16", True, compile_mode="reduce-overhead"),
        "torch.compile max-autotune": Setup("bf16", True, compile_mode="max-autotune"),
        # The strongest set-up we could assemble: Inductor's layout pass forced to channels_last,
        # and the whole iteration in one graph.
        "torch.compile forced NHWC, CUDA graph": Setup("bf16", True, "default", graph=True),
    },
}
PEERS = {"eager": EAGER, "compile": COMPILE}
OURS: dict[str, dict[str, tuple[Literal["fp32", "bf16"], bool]]] = {
    "cpu": {"ours fp32": ("fp32", False), "ours bf16": ("bf16", False)},
    "cuda": {"ours bf16, eager": ("bf16", False), "ours bf16, CUDA graph": ("bf16", True)},
}


class Iteration(Protocol):
    """One way to run the iteration, set up."""

    def __call__(self) -> None:
        """Make one iteration."""

    def losses(self) -> dict[str, float]:
        """Return the last iteration's losses by the names of plain.PlainIteration."""


@dataclass(frozen=True)
class Case:
    """What is timed, and how long.

    Attributes:
        device: "cpu" or "cuda".
        size: pixels of a picture's side.
        batch: pictures of each domain.
        rounds: turns of each contender.
        calls: iterations per turn.
        warmup: untimed iterations.
        checkout: of upstream, to be timed unmodified; None without it.
    """

    device: str
    size: int
    batch: int
    rounds: int = 5
    calls: int = 1
    warmup: int = 2
    checkout: Path | None = None

    def images(self) -> tuple[Tensor, Tensor]:
        """Return the pictures of both domains, [batch, 3, size, size], on the device."""
        generator = torch.Generator().manual_seed(1)
        shape = (2, self.batch, 3, self.size, self.size)
        real_a, real_b = (torch.rand(shape, generator=generator) * 2 - 1).to(self.device)
        return real_a, real_b


@dataclass(frozen=True)
class Contender:
    """One way to run the iteration.

    Attributes:
        build: makes what is timed.
        twin: makes the same from a plain iteration's weights, on its pictures, its graph not
            captured, to be judged by its first losses.
        precision: a key of measure.TOLERANCE.
    """

    build: Callable[[], Iteration]
    twin: Callable[[PlainIteration], Iteration]
    precision: str


def contenders(case: Case, against: Collection[str]) -> dict[str, Contender]:
    """Return name -> contender, ours last.

    Args:
        case: what is timed.
        against: keys of PEERS.
    """
    found: dict[str, Contender] = {}
    if case.checkout is not None:
        found[UPSTREAM] = _upstream(case, case.checkout)
    for peers in (PEERS[name][case.device] for name in PEERS if name in against):
        found |= {name: _plain(name, setup, case) for name, setup in peers.items()}
    return found | {name: _ours(*how, case) for name, how in OURS[case.device].items()}


def _upstream(case: Case, checkout: Path) -> Contender:
    def build(plain: PlainIteration | None = None) -> upstream.UpstreamIteration:
        theirs = upstream.UpstreamIteration(checkout, *_images(case, plain))
        if plain is not None:
            for name in ("G_A", "G_B", "D_A", "D_B"):
                weights = getattr(plain, name.lower()).state_dict()
                getattr(theirs.model, f"net{name}").load_state_dict(weights)
        return theirs

    return Contender(build, build, "fp32")


def _plain(name: str, setup: Setup, case: Case) -> Contender:
    def build(setup: Setup = setup, plain: PlainIteration | None = None) -> PlainIteration:
        if setup.compile_mode is not None:
            import torch._inductor.config as inductor

            torch._dynamo.reset()
            inductor.force_layout_optimization = "forced NHWC" in name
        # Its seed gives every one the same weights.
        return PlainIteration(setup, *_images(case, plain))

    return Contender(
        build, lambda plain: build(replace(setup, graph=False), plain), setup.precision
    )


def _ours(precision: Literal["fp32", "bf16"], graph: bool, case: Case) -> Contender:
    def twin(plain: PlainIteration) -> OursIteration:
        ours = OursIteration(precision, graph=False, images=_images(case, plain))
        ours.copy_weights(plain)
        return ours

    def build() -> OursIteration:
        return OursIteration(precision, graph=graph, images=case.images())

    return Contender(build, twin, precision)


def _images(case: Case, plain: PlainIteration | None) -> tuple[Tensor, Tensor]:
    return case.images() if plain is None else (plain.real_a, plain.real_b)
