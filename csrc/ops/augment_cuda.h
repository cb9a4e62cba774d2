// SPDX-License-Identifier: MIT
// augment on CUDA: one launch, which neither allocates nor synchronises.
// cudaErrorInvalidConfiguration: more blocks than a grid can have.
#pragma once

#include <driver_types.h>

#include "ops/augment.h"

namespace cyclegan_fast {

cudaError_t augment_fwd(const AugmentParams& p, cudaStream_t stream);

}  // namespace cyclegan_fast
