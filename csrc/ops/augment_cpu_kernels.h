// SPDX-License-Identifier: MIT
#pragma once

#include "common/isa.h"
#include "ops/augment.h"

namespace cyclegan_fast {

// A task is a row of a picture of the batch: N * h of them.
struct AugmentKernels {
  void (*fwd)(const AugmentParams& params, int64_t begin, int64_t end);
};

CYCLEGAN_FAST_DECLARE_KERNELS(AugmentKernels, augment)

}  // namespace cyclegan_fast
