# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.generator_loss.op import generator_loss as generator_loss
from cyclegan_fast.ops.generator_loss.reference import (
    generator_loss_reference as generator_loss_reference,
)
