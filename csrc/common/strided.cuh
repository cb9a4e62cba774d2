// SPDX-License-Identifier: MIT
// A [N, C, H, W] operand read through its own strides.
#pragma once

#include "common/strided.h"
#include "common/vector.cuh"

namespace cyclegan_fast {

// Whether `width` neighbouring channels can be read at once, wherever the pixel is.
template <typename T>
bool has_vector_channels(const Strided& s, int width) {
  return s.c == 1 && s.n % width == 0 && s.h % width == 0 && s.w % width == 0 &&
         aligned(s.data, width * static_cast<int>(sizeof(T)));
}

// Whether each plane lies as in a contiguous tensor, and can be read `width` pixels at once.
template <typename T>
bool has_flat_planes(const Strided& s, int64_t row, int width) {
  return s.w == 1 && s.h == row && s.n % width == 0 && s.c % width == 0 &&
         aligned(s.data, width * static_cast<int>(sizeof(T)));
}

// kWidth channels from `channel` on; at_once as has_vector_channels() said.
template <int kWidth, typename T>
__device__ inline Vector<T, kWidth> load_channels(const T* image, const Strided& s, bool at_once,
                                                  int channel, int h, int w) {
  const T* p = image + channel * s.c + h * s.h + w * s.w;
  if constexpr (kWidth == 1) {
    return load_vector<T, 1>(p);
  } else {
    if (at_once) return load_vector<T, kWidth>(p);
    Vector<T, kWidth> value;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) value.lane[i] = p[i * s.c];
    return value;
  }
}

}  // namespace cyclegan_fast
