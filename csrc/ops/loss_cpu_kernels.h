// SPDX-License-Identifier: MIT
#pragma once

#include "common/isa.h"
#include "ops/l1_loss.h"
#include "ops/lsgan_loss.h"

namespace cyclegan_fast {

// A task is a chunk of kLossChunk elements. fwd leaves one sum per chunk, finish turns them into
// the loss; finish is one task.
template <class Fwd, class Bwd>
struct LossKernels {
  void (*fwd)(const Fwd& params, int64_t begin, int64_t end);
  void (*finish)(const Fwd& params);
  void (*bwd)(const Bwd& params, int64_t begin, int64_t end);
};
using L1LossKernels = LossKernels<L1LossFwdParams, L1LossBwdParams>;
using LsganLossKernels = LossKernels<LsganLossFwdParams, LsganLossBwdParams>;

CYCLEGAN_FAST_DECLARE_KERNELS(L1LossKernels, l1_loss)
CYCLEGAN_FAST_DECLARE_KERNELS(LsganLossKernels, lsgan_loss)

}  // namespace cyclegan_fast
