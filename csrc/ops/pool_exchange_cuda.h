// SPDX-License-Identifier: MIT
// pool_exchange on CUDA: one launch, which neither allocates nor synchronises.
// cudaErrorInvalidConfiguration: more blocks than a grid can have.
#pragma once

#include <driver_types.h>

#include "ops/pool_exchange.h"

namespace cyclegan_fast {

cudaError_t pool_exchange_fwd(const PoolExchangeParams& p, cudaStream_t stream);

}  // namespace cyclegan_fast
