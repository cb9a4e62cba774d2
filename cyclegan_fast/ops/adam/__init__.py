# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.adam.op import adam as adam
from cyclegan_fast.ops.adam.reference import adam_reference as adam_reference
from cyclegan_fast.ops.adam.tables import Tables as Tables
