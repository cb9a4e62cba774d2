# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.l1_loss.op import l1_loss as l1_loss
from cyclegan_fast.ops.l1_loss.reference import l1_loss_reference as l1_loss_reference
