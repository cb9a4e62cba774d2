// SPDX-License-Identifier: MIT
// What l1_loss and lsgan_loss share: how a tensor is cut into the partial sums of the first stage.
#pragma once

#include <cstdint>

namespace cyclegan_fast {

// Elements summed into one partial sum: enough that the second stage is cheap, few enough that a
// discriminator's output of some thousand elements keeps several threads busy.
constexpr int64_t kLossChunk = 4096;

// Partial sums of a loss over so many elements, on every device. The sums of a chunk never depend
// on who computes it, so the loss does not depend on the number of threads.
static inline int64_t loss_workspace(int64_t numel) {
  return numel > 0 ? (numel + kLossChunk - 1) / kLossChunk : 1;
}

}  // namespace cyclegan_fast
