# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.adam.op import adam_ as adam_
from cyclegan_fast.ops.adam.reference import adam_reference_ as adam_reference_
from cyclegan_fast.ops.adam.tables import Tables as Tables
