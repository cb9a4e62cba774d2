# SPDX-License-Identifier: MIT
"""A user's own measurements of convolutions, which `cyclegan-fast tune` has written.

    {"format": 1, "device": "NVIDIA H200", "cyclegan_fast": "0.1.0", "torch": "2.11.0",
     "triton": "3.6.0", "cudnn": 91002, "steps": {"the library": 7.91, ...},
     "layers": {"forward reflect 2x256x66x66 to 256, 3x3, ...": {"fastest": "rows",
                "microseconds": {"library": 31.2, "rows": 27.9, "implicit": 40.1}}}}

It counts on the device, and with the PyTorch, Triton, cuDNN and version of this package, with which
it was made. Nothing is measured unless that command is called.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cyclegan_fast._version import __version__
from cyclegan_fast.errors import TableError
from cyclegan_fast.ops.reflect_conv2d.layers import Layer

FORMAT = 1
NAMES = ("library", "rows", "factored", "implicit", "hopper")  # what can be the fastest
ENVIRONMENT = "CYCLEGAN_FAST_TABLE"

# (layer, direction) -> an implementation, or None: nothing is known.
Choice = Callable[[Layer, str], "str | None"]


def path(device: torch.device) -> Path | None:
    """Return the file of a device's measurements; None where the environment says "off"."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return None if named == "off" else Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    name = machine(device)["device"].lower().replace(" ", "-").replace("/", "-")
    return Path(base) / "cyclegan_fast" / f"{name}.json"


@functools.cache
def machine(device: torch.device) -> dict[str, Any]:
    """Return what measurements are bound to."""
    cuda = device.type == "cuda"
    return {
        "cyclegan_fast": __version__,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "torch": torch.__version__.split("+")[0],
        "triton": _version("triton"),
        "cudnn": torch.backends.cudnn.version() if cuda else None,
    }


def choice(device: torch.device) -> Choice:
    """Return what the user's measurements on a device say."""
    return nothing if device.type != "cuda" else _of_file(device)


def read(file: Path, device: torch.device) -> dict[str, dict[str, Any]]:
    """Return the layers of a file, by key; none where it was made by another set-up.

    Raises:
        TableError: the file cannot be read, or is no file of measurements.
    """
    try:
        found = json.loads(file.read_text())
        layers = found["layers"]
        names = {row["fastest"] for row in layers.values()}
        known = found["format"] == FORMAT and names <= set(NAMES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{file}: no measurements of convolutions: {error}. {_advice()}") from None
    if not known:
        raise TableError(f"{file}: measurements of another version of this package. {_advice()}")
    here = machine(device)
    return layers if all(found.get(name) == value for name, value in here.items()) else {}


def _advice() -> str:
    return f"Make them again with `cyclegan-fast tune`, or set {ENVIRONMENT}=off"


@functools.cache
def _of_file(device: torch.device) -> Choice:
    file = path(device)
    layers = {} if file is None or not _is_there(file) else read(file, device)

    def fastest(layer: Layer, direction: str) -> str | None:
        row = layers.get(layer.key(direction))
        return None if row is None else row["fastest"]

    return fastest if layers else nothing


def _is_there(file: Path) -> bool:
    """Whether there is a file; one that the environment names must be."""
    if os.environ.get(ENVIRONMENT):
        return True
    try:
        return file.exists()
    except OSError:  # a home that this user may not look into
        return False


def nothing(_layer: Layer, _direction: str) -> None:
    """Return what no measurements say."""
    return None


def digest(device: torch.device) -> str | None:
    """Return what tells the measurements in force on a device from others; None without any."""
    file = path(device) if device.type == "cuda" else None
    if file is None or not _is_there(file) or not read(file, device):
        return None
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def forget() -> None:
    """Read the file anew when it is asked for next."""
    _of_file.cache_clear()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
