# SPDX-License-Identifier: MIT
"""How good a translation is: with pairs, without them, and beside simple baselines."""

from cyclegan_fast.metrics.baselines import colour_match, compare
from cyclegan_fast.metrics.distribution import patch_swd
from cyclegan_fast.metrics.fidelity import psnr, ssim

__all__ = ["colour_match", "compare", "patch_swd", "psnr", "ssim"]
