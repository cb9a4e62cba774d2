// SPDX-License-Identifier: MIT
// How many partial sums the CUDA kernels of l1_loss and lsgan_loss leave in the workspace.
// Plain arithmetic: the same on a machine without CUDA, and for every GPU, so that results are too.
#pragma once

#include <algorithm>
#include <cstdint>

namespace cyclegan_fast {

// One block each, at least 4096 elements, at most four blocks per multiprocessor of a large GPU.
inline int64_t cuda_loss_workspace(int64_t numel) {
  return std::clamp<int64_t>((numel + 4095) / 4096, 1, 512);
}

}  // namespace cyclegan_fast
