// SPDX-License-Identifier: MIT
// reflect_pad2d on CUDA: the launches, one each. They neither allocate nor synchronise.
//
// The image has at least one element. cudaErrorInvalidConfiguration: 2^31 rows or more, or as many
// elements in a padded row; copying, 2^31 elements or more in a padded image.
#pragma once

#include <driver_types.h>

#include "ops/reflect_pad2d.h"

namespace cyclegan_fast {

cudaError_t reflect_pad2d_fwd(const ReflectPad2dParams& p, cudaStream_t stream);
cudaError_t reflect_pad2d_copy(const ReflectPad2dCopyParams& p, cudaStream_t stream);
cudaError_t reflect_pad2d_bwd(const ReflectPad2dParams& p, cudaStream_t stream);

}  // namespace cyclegan_fast
