# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.lsgan_loss.op import lsgan_loss as lsgan_loss
from cyclegan_fast.ops.lsgan_loss.reference import lsgan_loss_reference as lsgan_loss_reference
