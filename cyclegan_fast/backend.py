# SPDX-License-Identifier: MIT
"""Which implementation serves an op: the policy, the reasons, and the record of what served.

Three implementations may exist for an op: ``reference`` (plain PyTorch, the specification),
``native`` (the compiled kernel for the tensor's device: C++ on a CPU, CUDA on a GPU) and
``triton``. The policy ``auto`` takes the first of the op's preference list that can serve; a back
end named explicitly serves or raises, so nothing ever falls back in silence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from cyclegan_fast.errors import BackendUnavailableError

BACKENDS = ("auto", "reference", "native", "triton")
ENVIRONMENT = "CYCLEGAN_FAST_BACKEND"

# A probe answers None when the back end can serve (device type, dtype), else the reason why not.
Probe = Callable[[str, torch.dtype], "str | None"]

_probes: dict[str, Mapping[str, Probe]] = {}
_preference: dict[str, Mapping[str, tuple[str, ...]]] = {}
_records: list[Counter[tuple[str, str]]] = []


def _checked(name: str, where: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{where} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


_policy = _checked(os.environ.get(ENVIRONMENT, "auto"), f"environment variable {ENVIRONMENT}")


def register(
    op: str, probes: Mapping[str, Probe], preference: Mapping[str, tuple[str, ...]]
) -> None:
    """Declare an op's back ends; called once by each op's module.

    Args:
        op: the op's stem, e.g. ``"instance_norm_act"``.
        probes: back end name -> probe; ``reference`` needs none and always serves.
        preference: device type -> back ends in the order in which ``auto`` tries them.
    """
    _probes[op] = probes
    _preference[op] = preference


def policy() -> str:
    """Return the policy in force: "auto", "reference", "native" or "triton"."""
    return _policy


class use_backend:  # noqa: N801 - reads as a function, works as a context manager too
    """Set the policy for the whole process; as a context manager, put the old one back at the end.

    Args:
        name: "auto", "reference", "native" or "triton".

    Raises:
        ValueError: unknown name.

    The policy is read when an op is called forward; its backward uses the same back end.
    """

    def __init__(self, name: str) -> None:
        global _policy
        self._before = _policy
        _policy = _checked(name, "use_backend: name")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_exception: object) -> None:
        global _policy
        _policy = self._before


def why_not(op: str, backend: str, device_type: str, dtype: torch.dtype) -> str | None:
    """Return None if the back end can serve the op on this device and dtype, else the reason."""
    if backend == "reference":
        return None
    probe = _probes[op].get(backend)
    if probe is None:
        return f"{op} has no {backend} kernel in this version"
    return probe(device_type, dtype)


def resolve(op: str, device_type: str, dtype: torch.dtype) -> str:
    """Return the back end that serves the op under the present policy.

    Args:
        op: the op's stem.
        device_type: "cpu", "cuda", ...
        dtype: dtype of the op's first tensor.

    Raises:
        BackendUnavailableError: a back end was asked for by name and cannot serve.
    """
    if _policy == "auto":
        for backend in _preference[op].get(device_type, ("reference",)):
            if why_not(op, backend, device_type, dtype) is None:
                return backend
        return "reference"
    reason = why_not(op, _policy, device_type, dtype)
    if reason is not None:
        raise BackendUnavailableError(
            f"{op}: back end {_policy!r} was asked for and cannot serve {dtype} on {device_type}: "
            f"{reason}. Use use_backend('auto') to let the package choose; "
            "`cyclegan-fast doctor` shows what is available."
        )
    return _policy


def count(op: str, backend: str) -> None:
    """Note that a back end served an op once; called from the bodies of the ops."""
    for record_ in _records:
        record_[op, backend] += 1


@contextmanager
def record() -> Iterator[Counter[tuple[str, str]]]:
    """Count what serves inside the block: yields ``{(op, back end): calls}``, filled as it runs."""
    counter: Counter[tuple[str, str]] = Counter()
    _records.append(counter)
    try:
        yield counter
    finally:
        # By identity: two counters of nested blocks may be equal in content.
        _records[:] = [other for other in _records if other is not counter]


@contextmanager
def unrecorded() -> Iterator[None]:
    """Count nothing inside the block, whoever records around it: it is a rehearsal."""
    records, _records[:] = list(_records), []
    try:
        yield
    finally:
        _records[:] = records


@contextmanager
def uncounted_on_error() -> Iterator[None]:
    """Forget what was counted inside the block if it ends by an error: it comes to nothing."""
    before = [(counter, counter.copy()) for counter in _records]
    try:
        yield
    except BaseException:
        for counter, counts in before:
            counter.clear()
            counter.update(counts)
        raise


def by_op(served: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Return what `record` counted as {op: {back end: calls}}, for a record to be kept."""
    nested: dict[str, dict[str, int]] = {}
    for (op, backend), calls in sorted(served.items()):
        nested.setdefault(op, {})[backend] = calls
    return nested


def explain(op: str | None = None) -> str:
    """Say which back end would serve each op on each device, and why the others would not.

    Args:
        op: one stem, or None for all.

    Returns:
        Lines of text, one per op, device and back end.

    Raises:
        ValueError: unknown op.
    """
    import cyclegan_fast.ops  # noqa: F401 - the ops register themselves

    if op is not None and op not in _probes:
        raise ValueError(f"explain: op must be one of {', '.join(sorted(_probes))}, got {op!r}")
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    lines = [f"policy: {_policy}"]
    for stem in sorted(_probes) if op is None else [op]:
        for device in devices:
            try:
                chosen = resolve(stem, device, torch.float32)
            except BackendUnavailableError:
                chosen = "none: it would raise"
            lines.append(f"{stem} on {device}: {chosen}")
            for backend in BACKENDS[1:]:
                if backend != chosen:
                    reason = why_not(stem, backend, device, torch.float32)
                    why = reason if reason is not None else "available, not first choice"
                    lines.append(f"  {backend}: {why}")
    return "\n".join(lines)
