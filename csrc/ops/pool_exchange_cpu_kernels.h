// SPDX-License-Identifier: MIT
#pragma once

#include "common/isa.h"
#include "ops/pool_exchange.h"

namespace cyclegan_fast {

// A task is a chunk of kPoolChunk values, of all pictures of the batch: so nobody else touches
// them.
struct PoolExchangeKernels {
  void (*fwd)(const PoolExchangeParams& params, int64_t begin, int64_t end);
};

constexpr int64_t kPoolChunk = 4096;

CYCLEGAN_FAST_DECLARE_KERNELS(PoolExchangeKernels, pool_exchange)

}  // namespace cyclegan_fast
