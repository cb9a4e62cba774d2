// SPDX-License-Identifier: MIT
#pragma once

#include "common/isa.h"
#include "ops/reflect_pad2d.h"

namespace cyclegan_fast {

// A task is one unpadded row of one plane, or of one image where the layout is channels_last. It
// owns the row's mirror images too, so that no two tasks write to the same place.
struct ReflectPad2dKernels {
  void (*fwd)(const ReflectPad2dParams& params, int64_t begin, int64_t end);
  void (*bwd)(const ReflectPad2dParams& params, int64_t begin, int64_t end);
  void (*copy)(const ReflectPad2dCopyParams& params, int64_t begin, int64_t end);
};

CYCLEGAN_FAST_DECLARE_KERNELS(ReflectPad2dKernels, reflect_pad2d)

}  // namespace cyclegan_fast
