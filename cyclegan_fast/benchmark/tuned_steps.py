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

LIBRARY = "the library"
FASTEST = "the fastest of each layer"
LOADING = "the fastest, norms on load"
# Makes a step; calling that makes an iteration.
Make = Callable[[], Callable[[], object]]


class Steps(NamedTuple):
    """What steps took.

    Attributes:
        milliseconds: of each way to choose, medians.
        on_load: keys of the layers that were asked whether they do norms while they load.
    """

    milliseconds: dict[str, float]
    on_load: frozenset[str]

    @property
    def fastest(self) -> str:
        """The way that took the least time."""
        return min(self.milliseconds, key=lambda name: self.milliseconds[name])


def measure(found: list[Measured], make: Make, device: torch.device, rounds: int) -> Steps:
    """Time steps by the library, by the fastest of each layer, and with norms on load besides.

    Args:
        found: of each layer, by itself.
        make: makes a step, which captures or plans whatever it does when it is first called.
        device: where it runs.
        rounds: turns of each.
    """
    asked: set[str] = set()
    fastest = {each.key: each.fastest for each in found}

    def by_library(_layer: Layer, _direction: str) -> str:
        return "library"

    def by_layer(layer: Layer, direction: str) -> str:
        return "library" if direction == ON_LOAD else fastest.get(layer.key(direction), "library")

    def loading(layer: Layer, direction: str) -> str:
        if direction != ON_LOAD:
            return by_layer(layer, direction)
        asked.add(layer.key(direction))
        return "implicit"

    ways = {LIBRARY: by_library, FASTEST: by_layer, LOADING: loading}
    milliseconds = {}
    for name, way in ways.items():  # one at a time: three may not fit into the GPU's memory
        times = interleaved({name: _choosing(way, make)}, device.type, rounds=rounds)
        milliseconds[name] = times[name]["median"] * 1e3
    return Steps(milliseconds, frozenset(asked))


def _choosing(way: measured.Choice, make: Make) -> Callable[[], object]:
    step = make()

    def run() -> object:
        with table.choosing(way):
            return step()

    return run


def record(found: list[Measured], steps: Steps, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what measured.read reads: what the fastest step has taken of each layer.

    Args:
        found: of each layer, by itself.
        steps: whole ones.
        facts: the set-up that they count on.
    """
    library = steps.fastest == LIBRARY
    layers: dict[str, dict[str, Any]] = {
        each.key: {
            "fastest": "library" if library else each.fastest,
            "microseconds": {name: round(t, 2) for name, t in each.microseconds.items()},
        }
        for each in found
    }
    loads = "implicit" if steps.fastest == LOADING else "library"
    layers |= {key: {"fastest": loads} for key in sorted(steps.on_load)}
    milliseconds = {name: round(t, 3) for name, t in steps.milliseconds.items()}
    return {"format": measured.FORMAT, **facts, "steps": milliseconds, "layers": layers}


def lines(steps: Steps) -> Iterator[str]:
    """Yield what is to be said of whole steps."""
    times = ", ".join(f"{name} {ms:.2f}" for name, ms in steps.milliseconds.items())
    yield f"a whole step: {times} ms; trainings take {steps.fastest}"
