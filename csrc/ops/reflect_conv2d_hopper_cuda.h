// SPDX-License-Identifier: MIT
// reflect_conv2d on Hopper: one launch, which neither allocates nor synchronises.
// cudaErrorNotSupported: the driver knows no tensor maps.
#pragma once

#include <driver_types.h>

#include "ops/reflect_conv2d_hopper.h"

namespace cyclegan_fast {

cudaError_t reflect_conv2d_hopper(const HopperParams& p, cudaStream_t stream);

}  // namespace cyclegan_fast
