// SPDX-License-Identifier: MIT
// reflect_pad2d: what the torch side hands to a kernel.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/strided.h"

namespace cyclegan_fast {

// Forward copies x [N, C, H, W] into y [N, C, H + 2 pad, W + 2 pad]; backward gathers grad_y into
// grad_x. Both tensors are contiguous, or both channels_last.
struct ReflectPad2dParams {
  Dtype dtype;
  bool channels_last;
  int64_t n, c, h, w;  // of the unpadded image
  int64_t pad;
  const void* in;  // x [N, C, H, W], or grad_y [N, C, H + 2 pad, W + 2 pad]
  void* out;       // y, or grad_x
};

// Copies x [N, C, H, W], which may lie in memory in any way, into y [N, C, H + 2 pad, W + 2 pad],
// contiguous or channels_last. Dtypes may differ, but float64 comes from float64 alone.
struct ReflectPad2dCopyParams {
  Dtype from, to;
  bool channels_last;
  int64_t n, c, h, w;  // of x
  int64_t pad;
  Strided x;
  void* y;
};

}  // namespace cyclegan_fast
