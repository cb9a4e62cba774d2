# SPDX-License-Identifier: MIT
"""CycleGAN, fast and proven: fused ops, networks, a trainer and the commands around them."""

from cyclegan_fast import backend, ops
from cyclegan_fast._version import __version__
from cyclegan_fast.fusion import accelerate, explain, restore

__all__ = ["__version__", "accelerate", "backend", "explain", "ops", "restore"]
