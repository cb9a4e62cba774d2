# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.reflect_conv2d.op import reflect_conv2d as reflect_conv2d
from cyclegan_fast.ops.reflect_conv2d.reference import (
    reflect_conv2d_reference as reflect_conv2d_reference,
)
from cyclegan_fast.ops.reflect_conv2d.table import explain as explain
