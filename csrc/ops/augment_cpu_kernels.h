// SPDX-License-Identifier: MIT
#pragma once

#include "common/isa.h"
#include "ops/augment.h"

namespace cyclegan_fast {

// A task is a band of kAugmentBand rows of a picture of the batch: neighbouring rows read the same
// rows of the picture, which are filtered once for all of them.
struct AugmentKernels {
  void (*fwd)(const AugmentParams& params, int64_t begin, int64_t end);
};

constexpr int64_t kAugmentBand = 8;

inline int64_t augment_bands(const AugmentParams& p) {
  return (p.h + kAugmentBand - 1) / kAugmentBand;
}

CYCLEGAN_FAST_DECLARE_KERNELS(AugmentKernels, augment)

}  // namespace cyclegan_fast
