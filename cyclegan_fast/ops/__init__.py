# SPDX-License-Identifier: MIT
"""Fused ops: each a function with autograd, its plain PyTorch reference beside it."""

from cyclegan_fast.ops.adam import adam, adam_reference
from cyclegan_fast.ops.augment import PackedPictures, augment, augment_reference
from cyclegan_fast.ops.generator_loss import generator_loss, generator_loss_reference
from cyclegan_fast.ops.instance_norm_act import instance_norm_act, instance_norm_act_reference
from cyclegan_fast.ops.l1_loss import l1_loss, l1_loss_reference
from cyclegan_fast.ops.lsgan_loss import lsgan_loss, lsgan_loss_reference
from cyclegan_fast.ops.pool_exchange import pool_exchange, pool_exchange_reference
from cyclegan_fast.ops.reflect_conv2d import reflect_conv2d, reflect_conv2d_reference
from cyclegan_fast.ops.reflect_pad2d import reflect_pad2d, reflect_pad2d_reference

__all__ = [
    "PackedPictures",
    "adam",
    "adam_reference",
    "augment",
    "augment_reference",
    "generator_loss",
    "generator_loss_reference",
    "instance_norm_act",
    "instance_norm_act_reference",
    "l1_loss",
    "l1_loss_reference",
    "lsgan_loss",
    "lsgan_loss_reference",
    "pool_exchange",
    "pool_exchange_reference",
    "reflect_conv2d",
    "reflect_conv2d_reference",
    "reflect_pad2d",
    "reflect_pad2d_reference",
]
