// SPDX-License-Identifier: MIT
// What all of Hopper's raw ops ask of their arguments.
#pragma once

#include "common/check.h"

namespace cyclegan_fast {

constexpr int64_t kHopperMostPixels = int64_t{1} << 30;  // they are counted in 32 bits

inline void check_aligned(const Checker& check, const char* argument, const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % 16)
    check.fail(argument, "aligned to 16 bytes; copy it with clone()", "an odd offset");
}

// Memory of an image, dense in channels_last and aligned for vectors.
inline const void* checked_image(const Checker& check, const char* argument, const Tensor& x,
                                 const Shape& shape, Dtype dtype) {
  check.image(argument, x, shape, dtype, Layout::kChannelsLast);
  check_aligned(check, argument, data(x));
  return data(x);
}

inline Dtype checked_half(const Checker& check, const char* argument, const Tensor& x) {
  const Dtype dtype = check.dtype(argument, x);
  if (dtype != Dtype::kFloat16 && dtype != Dtype::kBFloat16)
    check.fail(argument, "float16 or bfloat16", name(dtype));
  return dtype;
}

inline void check_calls(const Checker& check, const char* argument, size_t found, size_t expected) {
  if (found != expected)
    check.fail(argument, text("of ", static_cast<int64_t>(expected), " calls"),
               text(static_cast<int64_t>(found)));
}

}  // namespace cyclegan_fast
