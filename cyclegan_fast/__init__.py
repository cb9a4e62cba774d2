# SPDX-License-Identifier: MIT
"""CycleGAN, fast and proven: fused ops, networks, a trainer and the commands around them."""

from cyclegan_fast import backend, ops
from cyclegan_fast._version import __version__

__all__ = ["__version__", "backend", "ops"]
