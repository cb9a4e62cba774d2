# SPDX-License-Identifier: MIT
"""Run any network's instance norms, activations, skips and reflection pads as fused ops."""

from cyclegan_fast.fusion.accelerate import (
    accelerate,
    convolution_parameters,
    plan_of,
    restore,
)
from cyclegan_fast.fusion.explain import Explanation, explain

__all__ = ["Explanation", "accelerate", "convolution_parameters", "explain", "plan_of", "restore"]
