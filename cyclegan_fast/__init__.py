# SPDX-License-Identifier: MIT
"""CycleGAN, fast and proven: fused ops, networks, a trainer and the commands around them."""

import importlib
from typing import TYPE_CHECKING, Any

from cyclegan_fast._version import __version__

if TYPE_CHECKING:
    from cyclegan_fast import backend, fusion, ops

    accelerate, explain, restore = fusion.accelerate, fusion.explain, fusion.restore

__all__ = ["__version__", "accelerate", "backend", "explain", "ops", "restore"]

# Imported when first asked for: PyTorch takes a second or two, and `cyclegan-fast --help` needs
# nothing of it.
_FUNCTIONS = ("accelerate", "explain", "restore")
_MODULES = ("backend", "ops")


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("cyclegan_fast.fusion"), name)
    if name in _MODULES:
        return importlib.import_module(f"cyclegan_fast.{name}")
    raise AttributeError(f"module 'cyclegan_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
