// SPDX-License-Identifier: MIT
// A [N, C, H, W] operand with strides of its own, without a torch or a CUDA header.
#pragma once

#include <cstdint>

namespace cyclegan_fast {

// Strides are counted in elements; the operand is absent if data is null.
struct Strided {
  const void* data = nullptr;
  int64_t n = 0, c = 0, h = 0, w = 0;
};

}  // namespace cyclegan_fast
