// SPDX-License-Identifier: MIT
// l1_loss and lsgan_loss on CUDA: the launches. Forward is two of them, or one for a small tensor;
// backward is one. None allocates or synchronises.
#pragma once

#include <driver_types.h>

#include "ops/l1_loss.h"
#include "ops/lsgan_loss.h"

namespace cyclegan_fast {

cudaError_t l1_loss_fwd(const L1LossFwdParams& p, cudaStream_t stream);
cudaError_t l1_loss_bwd(const L1LossBwdParams& p, cudaStream_t stream);
cudaError_t lsgan_loss_fwd(const LsganLossFwdParams& p, cudaStream_t stream);
cudaError_t lsgan_loss_bwd(const LsganLossBwdParams& p, cudaStream_t stream);

}  // namespace cyclegan_fast
