# SPDX-License-Identifier: MIT
"""The fused ops as modules."""

from cyclegan_fast.nn.conv import ReflectConv2d
from cyclegan_fast.nn.losses import L1Loss, LSGANLoss
from cyclegan_fast.nn.norm import InstanceNormAct2d
from cyclegan_fast.nn.pad import ReflectPad2d

__all__ = ["InstanceNormAct2d", "L1Loss", "LSGANLoss", "ReflectConv2d", "ReflectPad2d"]
