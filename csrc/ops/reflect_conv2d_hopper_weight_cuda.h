// SPDX-License-Identifier: MIT
// The weight's gradient on Hopper: one launch, or two where there are several splits, which neither
// allocate nor synchronise.
#pragma once

#include <driver_types.h>

#include "ops/reflect_conv2d_hopper_weight.h"

namespace cyclegan_fast {

cudaError_t reflect_conv2d_hopper_weight(const HopperWeightParams& p, cudaStream_t stream);

}  // namespace cyclegan_fast
