# SPDX-License-Identifier: MIT
"""For count_launches.py: convolutions as Triton's kernels would do them, counted, not computed.

All of an iteration's, also where the table has the library first; with the norms between them as
kernels of their own, or done while the convolutions load. A call is one launch, the gradient of a
weight two where its sum is split; two calls that are alike share theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from count_convolutions import size
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from cyclegan_fast import backend
from cyclegan_fast.fusion import hand_serving
from cyclegan_fast.ops.instance_norm_act import into as norms
from cyclegan_fast.ops.reflect_conv2d import into, into_between, table
from cyclegan_fast.ops.reflect_conv2d.calls import Statistics
from cyclegan_fast.ops.reflect_conv2d.layers import ON_LOAD

# (group, name, launches, bytes)
Note = Callable[[str, str, int, int], None]
NAMES = {"forward": "fprop", "gradient_of_input": "dgrad", "gradient_of_weight": "wgrad"}


def _size(*tensors: Tensor | None) -> int:
    return sum(size(t) for t in tensors if t is not None)


def _first_that_serves(layer: table.Layer, direction: str) -> str | None:
    if direction == ON_LOAD:
        return None
    names = table.TRITON if layer.kind == "reflect" else ("implicit",)
    return next(name for name in names if table.why_not(name, layer) is None)


def _norms_on_load(layer: table.Layer, direction: str) -> str | None:
    return "implicit" if direction == ON_LOAD else _first_that_serves(layer, direction)


@contextmanager
def in_triton(note: Note, *, on_load: bool) -> Iterator[None]:
    """Let all convolutions inside be Triton's, and note what they and their norms do.

    Args:
        note: takes what is found.
        on_load: let them do the norms beside them while they load, wherever the plan allows it.
    """

    def launch(calls: Sequence[into.Call]) -> None:
        for part, (launches, moved) in _parts(calls).items():
            note("convolutions", part, launches, moved)
        _zero(map(_written, calls))

    def do(call: norms.Call, *beside: norms.Call) -> None:
        if not call.name.endswith("finish"):
            return plain(call, *beside)
        both = [call, *beside]
        note("norms", call.name, 1, sum(_size(*c.read, *c.written) for c in both))
        _zero(written for each in both for written in each.written if written is not None)
        return None

    def between(call: into_between.Call, *beside: into_between.Call) -> None:
        both = [call.operands, *(other.operands for other in beside)]
        forward = isinstance(call.operands, Statistics)
        name = "statistics" if forward else "sums"
        note("norms", f"{name} from chunks", 1, sum(_size(*_tensors(each)) for each in both))
        _zero(t for each in both for t in ((each.mean, each.rstd) if forward else (each.sums,)))

    plain = norms.Call.do
    probes = {name: lambda *_: None for name in ("native", "triton")}
    with (
        mock.patch.dict(backend._probes, {table.STEM: probes}),
        mock.patch.object(into, "launch", launch),
        mock.patch.object(norms.Call, "do", do),
        mock.patch.object(into_between.Call, "do", between),
        mock.patch.object(hand_serving, "finishes", lambda _x: True),
        table.choosing(_norms_on_load if on_load else _first_that_serves),
    ):
        yield


def _parts(calls: Sequence[into.Call]) -> dict[str, tuple[int, int]]:
    """Launches and bytes of one call, or of two in the same launches, by part."""
    direction = calls[0].direction
    found = {"": 0, "left for norms": 0, "norms on load": 0, "split sums": 0}
    launches = dict.fromkeys(found, 0) | {"": 1}
    for call in calls:
        operands = call.operands
        if direction == "forward":
            found[""] += _size(operands.x, operands.weight, operands.bias, operands.y)
            found["left for norms"] += _size(operands.moments)
            found["norms on load"] += _size(*_tensors(operands.norm))
        elif direction == "gradient_of_input":
            found[""] += _size(operands.grad_y, operands.y, operands.weight, operands.grad_x)
            if operands.norm is not None:
                norm = operands.norm
                found["left for norms"] += _size(norm.x, norm.skip, norm.partial)
            found["norms on load"] += _size(*_tensors(operands.of_norm))
        else:
            found[""] += _size(operands.grad_y, operands.y, operands.x)
            found[""] += _size(operands.grad_weight, operands.grad_bias)
            found["norms on load"] += _size(*_tensors(operands.norm), *_tensors(operands.of_norm))
            found["split sums"] += 2 * _size(operands.workspace)  # written and read
            launches["split sums"] = 1
    return {
        f"{NAMES[direction]} {part}".strip(): (launches[part], moved)
        for part, moved in found.items()
        if moved
    }


def _tensors(norm: tuple | None) -> list[Tensor]:
    return [value for value in tree_leaves(norm) if isinstance(value, Tensor)]


def _zero(written: Iterable[Tensor]) -> None:
    """Write something, uncounted."""
    with _disable_current_modes():
        for tensor in written:
            tensor.zero_()


def _written(call: into.Call) -> Tensor:
    operands = call.operands
    if call.direction == "forward":
        return operands.y
    written = operands.grad_x if call.direction == "gradient_of_input" else operands.grad_weight
    return written if written is not None else operands.grad_bias
