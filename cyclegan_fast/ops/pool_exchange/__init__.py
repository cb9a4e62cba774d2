# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.pool_exchange.op import pool_exchange as pool_exchange
from cyclegan_fast.ops.pool_exchange.reference import (
    pool_exchange_reference as pool_exchange_reference,
)
