# SPDX-License-Identifier: MIT
"""Which implementation of a convolution `auto` takes, by a table and never by a stopwatch.

    reference   PyTorch's padding, convolution and tanh, under autograd
    library     our padding kernel and the device's own convolution (cuDNN, oneDNN): library.py
    rows        Triton: a padded image as one matrix, a tap a shift of its rows: triton_rows.py
    factored    Triton: few channels on one side, factored by the kernel's rows: triton_factored.py
    implicit    Triton: an implicit GEMM that reflects while it loads: triton_implicit.py
    hopper      CUDA C++ for compute capability 9.0, 3x3 on a padded image: cuda_hopper.py

A run takes the same implementation every time. A row changes when benchmarks/results shows it to; a
user's own measurements, made by `cyclegan-fast tune`, come before the rows (measured.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import BackendUnavailableError
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.reflect_conv2d import measured
from cyclegan_fast.ops.reflect_conv2d.layers import DIRECTIONS, ON_LOAD, Layer

STEM = "reflect_conv2d"

# The back end that each implementation belongs to.
BACKEND_OF = {
    "reference": "reference",
    "library": "native",
    "rows": "triton",
    "factored": "triton",
    "implicit": "triton",
    "hopper": "native",
}
# Triton's own, the one first that is made for the fewest layers.
TRITON = ("factored", "rows", "implicit")
# All whose kernels are launched on memory that is there, see into.py. Hopper's is in no row of the
# table: no record shows it to be faster. A user's measurements may choose it.
LAUNCHED = ("hopper", *TRITON)

# Triton emits tensor-core code from here on; before, a tile of tl.dot is spilled registers
# (sm_75, Triton 3.6 and 3.8: thousands of scalar multiplications, 4 KB of stack a thread).
FIRST_TENSOR_CORES = (8, 0)


class Row(NamedTuple):
    """One row of the table: what it speaks of, the order in which `auto` tries, and why."""

    device_type: str
    order: tuple[str, ...]
    why: str
    dtypes: tuple[torch.dtype, ...] = _common.FLOATS
    below: tuple[int, int] | None = None  # compute capabilities below this one only


# The first row that fits holds.
TABLE = (
    Row("cpu", ("library", "reference"), "oneDNN has the CPU's matrix instructions"),
    Row(
        "cuda",
        ("library", "reference"),
        "Triton emits no tensor-core code for this GPU",
        below=FIRST_TENSOR_CORES,
    ),
    Row(
        "cuda",
        ("library", "reference"),
        "float64 has no Triton kernel",
        dtypes=(torch.float64,),
    ),
    Row(
        "cuda",
        ("library", *TRITON, "reference"),
        "no record shows Triton to be faster than cuDNN",
    ),
)

# A test's or a benchmark's own choice, which comes before everything but the policy "native".
_chosen: list[measured.Choice] = []


@contextmanager
def choosing(choice: measured.Choice) -> Iterator[None]:
    """Let `choice(layer, direction)` say what `auto` takes; None where it has nothing to say."""
    _chosen.append(choice)
    try:
        yield
    finally:
        _chosen.remove(choice)


def row(device_type: str, capability: tuple[int, int] | None, dtype: torch.dtype) -> Row:
    """Return the table's row for a call; capability is None off CUDA."""
    for each in TABLE:
        fits = each.device_type == device_type and dtype in each.dtypes
        if fits and (each.below is None or (capability is not None and capability < each.below)):
            return each
    return Row(device_type, ("reference",), f"nothing of ours runs on {device_type!r}")


def implementation(name: str, kind: str = "reflect") -> Any:
    """Return the module of one of the implementations that are launched; see calls.py."""
    module = "triton_transposed" if kind == "transposed" else f"triton_{name}"
    if name == "hopper":
        module = "cuda_hopper"
    return import_module(f"cyclegan_fast.ops.reflect_conv2d.{module}")


def why_not(name: str, layer: Layer, direction: str = "forward") -> str | None:
    """Return None if an implementation can serve a direction of a layer, else the reason."""
    reason = backend.why_not(STEM, BACKEND_OF[name], layer.device.type, layer.dtype)
    if reason is not None or name not in LAUNCHED:
        return reason
    if layer.kind != "reflect" and name != "implicit":
        return f"it is not made for a convolution of the kind {layer.kind!r}"
    kernels = implementation(name, layer.kind)
    if not hasattr(kernels, direction):
        return f"it has no kernel for the {direction.replace('_', ' ')}"
    return kernels.why_not(*layer[:4])


def served_by(x: Tensor) -> str:
    """Return how a call is served under the present policy: by "reference", or by our ops.

    Returns:
        "reference", or the policy, by which the ops choose for each direction.

    Raises:
        BackendUnavailableError: a back end was asked for by name and cannot serve.
    """
    chosen = backend.resolve(STEM, x.device.type, x.dtype)
    return chosen if chosen == "reference" else backend.policy()


def choose(direction: str, policy: str, layer: Layer) -> str:
    """Return the implementation that serves one direction of a layer.

    Args:
        direction: one of layers.DIRECTIONS.
        policy: "auto", "native" or "triton".
        layer: what is computed.

    Raises:
        BackendUnavailableError: "triton" was asked for and cannot serve.
    """
    return _chosen_with_reason(direction, policy, layer)[0]


def may_choose(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether anything but the library may be taken on a device, whatever the layer."""
    policy = backend.policy()
    if backend.why_not(STEM, "triton", device.type, dtype) is not None:
        return False
    known = bool(_chosen) or measured.choice(device) is not measured.nothing
    return policy == "triton" or (policy == "auto" and known)


def takes_norms(layer: Layer) -> str | None:
    """Return what serves a layer that does the norms beside it while it loads.

    None of a layer that does not. The implicit GEMM can in all of its directions: it reads what the
    norm before it would have read, and the gradient that the norm behind it would have read. Where
    Hopper's kernel is chosen, that makes the forward and the gradient of the input of what it
    serves, and the implicit GEMM the rest. A measurement, or a run's own choice, says so.

    Args:
        layer: what is computed; x is what the norm before it reads, padding what it pads by.
    """
    return _loading_with_reason(layer)[0]


def why_not_loading(layer: Layer) -> str | None:
    """Return None if Hopper's kernel can do the norms beside a layer while it loads, or why not."""
    if layer.kind != "reflect":
        return f"it is not made for a convolution of the kind {layer.kind!r}"
    return implementation("hopper").why_not_loading(*layer[:4])


def explain(x: Tensor, weight: Tensor, padding: int = 0, stride: int = 1) -> str:
    """Say which implementation serves reflect_conv2d(x, weight, ...), and why.

    Args:
        x: [N, C, H, W], as the call's.
        weight: [C_out, C, KH, KW], as the call's.
        padding: as the call's.
        stride: as the call's.

    Returns:
        "library: no record shows Triton to be faster than cuDNN", say; a line for each direction
        where they differ, and one more where a step of training has it do the norms beside it.

    Raises:
        BackendUnavailableError: one was asked for by name and cannot serve.
    """
    policy = served_by(x)
    if policy == "reference":
        asked = backend.policy() == "reference"
        return "reference: " + ("asked for by name" if asked else "nothing else can serve")
    layer = Layer(x, weight, padding, stride)
    found = {way: ": ".join(_chosen_with_reason(way, policy, layer)) for way in DIRECTIONS}
    name, why = _loading_with_reason(layer)
    if len(set(found.values())) == 1 and name is None:
        return found[DIRECTIONS[0]]
    if name is not None:
        found["between norms, which it does while it loads"] = f"{name}: {why}"
    return "\n".join(f"{way}: {text}" for way, text in found.items())


def _loading_with_reason(layer: Layer) -> tuple[str | None, str]:
    policy = backend.policy()
    if policy in ("native", "reference") or why_not("implicit", layer) is not None:
        return None, ""
    found = ((choice(layer, ON_LOAD), why) for choice, why in _choices(policy, layer))
    name, why = next((pair for pair in found if pair[0] is not None), (None, ""))
    if name == "hopper" and (reason := why_not_loading(layer)) is not None:
        return "implicit", f"{why}; hopper cannot serve: {reason}"
    return (name, why) if name in ("implicit", "hopper") else (None, "")


def _chosen_with_reason(direction: str, policy: str, layer: Layer) -> tuple[str, str]:
    if policy == "native":
        return "library", "asked for by name"
    for choice, why in _choices(policy, layer):
        name = choice(layer, direction)
        if name is not None and why_not(name, layer, direction) is None:
            return name, why
    if policy == "triton" and layer.kind != "reflect":
        return "library", "PyTorch's own convolution, no op that Triton was asked for"
    names: tuple[str, ...] = TRITON
    why = "asked for by name"
    if policy == "auto":
        capability = _capability(layer.device.index) if layer.device.type == "cuda" else None
        _, names, why, *_ = row(layer.device.type, capability, layer.dtype)
    reasons: list[str] = []
    for name in names:
        reason = why_not(name, layer, direction)
        if reason is None:
            return name, "; ".join([why, *reasons])
        reasons.append(f"{name} cannot serve: {reason}")
    if policy == "auto":
        return "library", "; ".join(reasons)
    raise BackendUnavailableError(
        f"{STEM}: back end 'triton' was asked for, and none of its implementations can serve: "
        f"{'; '.join(reasons)}. Use use_backend('auto') to let the package choose."
    )


def _choices(policy: str, layer: Layer) -> list[tuple[measured.Choice, str]]:
    """What comes before the table's rows, first who is asked first, and why it is followed."""
    choices = [(choice, "chosen for this run") for choice in reversed(_chosen)]
    if policy == "auto":
        choices.append((measured.choice(layer.device), "measured to be the fastest here"))
    return choices


@torch.compiler.assume_constant_result
def _capability(index: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def _native_probe(device_type: str, dtype: torch.dtype) -> str | None:
    if dtype not in _common.FLOATS:
        return f"{dtype} is not a floating-point dtype that it takes"
    if device_type in ("cpu", "cuda"):
        return None
    return f"no convolution library is known for device type {device_type!r}"


def _triton_probe(device_type: str, dtype: torch.dtype) -> str | None:
    if dtype == torch.float64:
        return "its products are of tensor cores, which float64 is not made for: use native"
    reason = _common.triton_probe(device_type, dtype)
    if reason is None and device_type == "cuda" and _capability(None) < FIRST_TENSOR_CORES:
        return "Triton emits no tensor-core code for a GPU before compute capability 8.0"
    return reason


backend.register(STEM, {"native": _native_probe, "triton": _triton_probe}, _common.PREFERENCE)
