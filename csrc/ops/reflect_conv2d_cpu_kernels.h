// SPDX-License-Identifier: MIT
#pragma once

#include "common/isa.h"
#include "ops/reflect_conv2d.h"

namespace cyclegan_fast {

// A task of `factors` is one window, of `gather` one channel of the result, of the others one row
// of what they write.
struct ReflectConv2dKernels {
  void (*factors)(const WinogradFactorsParams& params, int64_t begin, int64_t end);
  void (*sum_rows)(const ThinRowsParams& params, int64_t begin, int64_t end);
  void (*spread_rows)(const ThinRowsParams& params, int64_t begin, int64_t end);
  void (*gather)(const WinogradGatherParams& params, int64_t begin, int64_t end);
};

CYCLEGAN_FAST_DECLARE_KERNELS(ReflectConv2dKernels, reflect_conv2d)

}  // namespace cyclegan_fast
