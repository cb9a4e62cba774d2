# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.instance_norm_act.op import instance_norm_act as instance_norm_act
from cyclegan_fast.ops.instance_norm_act.op import (
    instance_norm_act_and_interior as instance_norm_act_and_interior,
)
from cyclegan_fast.ops.instance_norm_act.reference import (
    instance_norm_act_reference as instance_norm_act_reference,
)
