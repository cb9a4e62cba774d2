// SPDX-License-Identifier: MIT
// generator_loss on CUDA: the launches. Forward is two of them, backward one. None allocates or
// synchronises. cudaErrorInvalidConfiguration: more blocks than a grid can have.
#pragma once

#include <driver_types.h>

#include "ops/generator_loss.h"

namespace cyclegan_fast {

cudaError_t generator_loss_fwd(const GeneratorLossFwdParams& p, cudaStream_t stream);
cudaError_t generator_loss_bwd(const GeneratorLossBwdParams& p, cudaStream_t stream);

}  // namespace cyclegan_fast
