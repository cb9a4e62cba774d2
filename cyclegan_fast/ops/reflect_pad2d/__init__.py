# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.reflect_pad2d.op import reflect_pad2d as reflect_pad2d
from cyclegan_fast.ops.reflect_pad2d.reference import (
    reflect_pad2d_reference as reflect_pad2d_reference,
)
