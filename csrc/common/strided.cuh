// SPDX-License-Identifier: MIT
// What a Strided operand allows.
#pragma once

#include "common/strided.h"
#include "common/vector.cuh"

namespace cyclegan_fast {

// Whether `width` neighbouring channels can be read at once, wherever the pixel is; or absent.
template <typename T>
bool has_vector_channels(const Strided& s, int width) {
  return !s.data || (s.c == 1 && s.n % width == 0 && s.h % width == 0 && s.w % width == 0 &&
                     aligned(s.data, width * static_cast<int>(sizeof(T))));
}

// Whether each plane lies as in a contiguous tensor, and can be read `width` pixels at once; or
// absent.
template <typename T>
bool has_flat_planes(const Strided& s, int64_t row, int width) {
  return !s.data || (s.w == 1 && s.h == row && s.n % width == 0 && s.c % width == 0 &&
                     aligned(s.data, width * static_cast<int>(sizeof(T))));
}

}  // namespace cyclegan_fast
