# SPDX-License-Identifier: MIT
"""Run any network's instance norms, activations, skips and reflection pads as fused ops."""

from cyclegan_fast.fusion.accelerate import accelerate, plan_of, restore
from cyclegan_fast.fusion.explain import Explanation, explain
from cyclegan_fast.fusion.parts import (
    before_tanh,
    by_hand,
    convolution_parameters,
    ends_in_tanh,
)

__all__ = [
    "Explanation",
    "accelerate",
    "before_tanh",
    "by_hand",
    "convolution_parameters",
    "ends_in_tanh",
    "explain",
    "plan_of",
    "restore",
]
