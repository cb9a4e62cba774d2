// SPDX-License-Identifier: MIT
// augment on the CPU: registers the raw op and shares bands of rows out among the threads.
#include "ops/augment_args.h"
#include "ops/augment_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

void augment_fwd(const Tensor& levels,  // uint8 [bytes]
                 const Tensor& table,   // int64 [P, 7]
                 const Tensor& taps,    // int32 [any]
                 const Tensor& picks,   // int64 [N, 4]
                 const Tensor& out) {   // [N, C, h, w]
  const auto params = augment_args(levels, table, taps, picks, out);
  constexpr int64_t kTaps = 25;  // of Pillow's bicubic filter where it enlarges
  const int64_t bands = augment_bands(params);
  parallel_for(params.n * bands, kAugmentBand * params.w * params.c * kTaps,
               [&](int64_t begin, int64_t end) { augment_kernels().fwd(params, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("augment_fwd", TORCH_BOX(&augment_fwd));
}

}  // namespace cyclegan_fast
