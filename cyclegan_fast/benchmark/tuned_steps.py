# SPDX-License-Identifier: MIT
"""Whole steps of training with other implementations of their convolutions.

What a convolution in Triton spares the norms beside it, no measurement of a layer shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from cyclegan_fast.benchmark.timing import interleaved
from cyclegan_fast.benchmark.tuning import Measured
from cyclegan_fast.ops.reflect_conv2d import measured, table
from cyclegan_fast.ops.reflect_conv2d.layers import ON_LOAD, Layer


class Way(NamedTuple):
    """A way to choose implementations.

    Attributes:
        name: what people read.
        fastest: from what was measured of a direction of a layer, the one it takes.
        on_load: what does norms while it loads: "library" for none, see table.takes_norms.
    """

    name: str
    fastest: Callable[[Measured], str]
    on_load: str

    def choice(self, found: list[Measured], asked: list[Layer]) -> measured.Choice:
        """Return what a table is told, and note the layers that are asked about norms on load."""
        of_layers = {each.key: self.fastest(each) for each in found}

        def choose(layer: Layer, direction: str) -> str:
            if direction != ON_LOAD:
                return of_layers.get(layer.key(direction), "library")
            asked.append(layer)
            return self.on_load

        return choose


def _of_ours(each: Measured) -> str:
    """The fastest of our kernels, which alone spare the norms beside them anything."""
    ours = {name: t for name, t in each.microseconds.items() if name != "library"}
    return min(ours, key=ours.__getitem__, default="library")


LIBRARY = Way("the library", lambda _each: "library", "library")
FASTEST = Way("the fastest of each layer", lambda each: each.fastest, "library")
LOADING = Way("the fastest, norms on load", lambda each: each.fastest, "implicit")
OURS = Way("our kernels", _of_ours, "library")
OURS_LOADING = Way("our kernels, norms on load", _of_ours, "implicit")
HOPPER_LOADING = Way("our kernels, norms on load by hopper", _of_ours, "hopper")
WAYS = (LIBRARY, FASTEST, LOADING, OURS, OURS_LOADING, HOPPER_LOADING)
# Makes a step; calling that makes an iteration.
Make = Callable[[], Callable[[], object]]


class Steps(NamedTuple):
    """What steps took.

    Attributes:
        milliseconds: of each way to choose, by name, medians.
        on_load: keys of the layers that were asked whether they do norms while they load.
    """

    milliseconds: dict[str, float]
    on_load: frozenset[str]

    @property
    def fastest(self) -> Way:
        """The way that took the least time."""
        timed = [way for way in WAYS if way.name in self.milliseconds]
        return min(timed, key=lambda way: self.milliseconds[way.name])


def measure(found: list[Measured], make: Make, device: torch.device, rounds: int) -> Steps:
    """Time steps in each way to choose.

    Args:
        found: of each layer, by itself.
        make: makes a step, which captures or plans whatever it does when it is first called.
        device: where it runs.
        rounds: turns of each.
    """
    asked: list[Layer] = []
    milliseconds = {}
    for way in WAYS:  # one at a time: several may not fit into the GPU's memory
        if way is HOPPER_LOADING and not any(table.why_not_loading(each) is None for each in asked):
            continue  # it is the way before
        run = _choosing(way.choice(found, asked), make)
        times = interleaved({way.name: run}, device.type, rounds=rounds)
        milliseconds[way.name] = times[way.name]["median"] * 1e3
    return Steps(milliseconds, frozenset(layer.key(ON_LOAD) for layer in asked))


def _choosing(choice: measured.Choice, make: Make) -> Callable[[], object]:
    step = make()

    def run() -> object:
        with table.choosing(choice):
            return step()

    return run


def record(found: list[Measured], steps: Steps, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what measured.read reads: what the fastest step has taken of each layer.

    Args:
        found: of each layer, by itself.
        steps: whole ones.
        facts: the set-up that they count on.
    """
    way = steps.fastest
    layers: dict[str, dict[str, Any]] = {
        each.key: {
            "fastest": way.fastest(each),
            "microseconds": {name: round(t, 2) for name, t in each.microseconds.items()},
        }
        for each in found
    }
    layers |= {key: {"fastest": way.on_load} for key in sorted(steps.on_load)}
    milliseconds = {name: round(t, 3) for name, t in steps.milliseconds.items()}
    return {"format": measured.FORMAT, **facts, "steps": milliseconds, "layers": layers}


def lines(steps: Steps) -> Iterator[str]:
    """Yield what is to be said of whole steps."""
    times = ", ".join(f"{name} {ms:.2f}" for name, ms in steps.milliseconds.items())
    yield f"a whole step: {times} ms; trainings take {steps.fastest.name}"
