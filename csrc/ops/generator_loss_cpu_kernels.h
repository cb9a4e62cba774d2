// SPDX-License-Identifier: MIT
#pragma once

#include "common/isa.h"
#include "ops/generator_loss.h"

namespace cyclegan_fast {

// A task is a chunk of kLossChunk elements of a group (fwd) or of a term (bwd). fwd leaves one sum
// per chunk and term, finish turns them into the losses and their total; finish is one task.
struct GeneratorLossKernels {
  void (*fwd)(const GeneratorLossFwdParams& params, int64_t begin, int64_t end);
  void (*finish)(const GeneratorLossFwdParams& params);
  void (*bwd)(const GeneratorLossBwdParams& params, int64_t begin, int64_t end);
};

CYCLEGAN_FAST_DECLARE_KERNELS(GeneratorLossKernels, generator_loss)

}  // namespace cyclegan_fast
