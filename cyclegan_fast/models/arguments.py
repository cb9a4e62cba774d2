# SPDX-License-Identifier: MIT
"""Arguments that every network takes: their checks, and the norm layer a name stands for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from torch import nn

NORMS = ("instance", "batch", "none")


def check_int(owner: str, name: str, value: int, least: int) -> None:
    """Raise unless value is an int (not a bool) of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{owner}: {name} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {value}")


def check_choice(owner: str, name: str, value: str, choices: Iterable[str]) -> None:
    """Raise unless value is one of the choices; the message offers the nearest one."""
    choices = tuple(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(choices)
        raise ValueError(f"{owner}: {name} must be one of {listed}, got {value!r}{hint}")


def norm_layer(owner: str, norm: str) -> tuple[Callable[[int], nn.Module], bool]:
    """Return what builds the norm called ``norm``, and whether convolutions before it have a bias.

    An instance norm has no parameters, so its convolution carries the bias; a batch norm has its
    own. Without a norm there is none either: that is how published weights were trained.

    Args:
        owner: the network's name, for the message.
        norm: "instance" (no affine parameters, no running statistics), "batch" (both) or "none".

    Raises:
        ValueError: unknown norm.
    """
    check_choice(owner, "norm", norm, NORMS)
    if norm == "instance":
        return nn.InstanceNorm2d, True
    if norm == "batch":
        return nn.BatchNorm2d, False
    return lambda _channels: nn.Identity(), False
