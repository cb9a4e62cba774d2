// SPDX-License-Identifier: MIT
// augment on CUDA: registers the raw op, and hands checked tensors to the kernel.
#include "ops/augment_cuda.h"

#include "common/cuda_check.h"
#include "ops/augment_args.h"

namespace cyclegan_fast {
namespace {

void fwd(const Tensor& levels,  // uint8 [bytes]
         const Tensor& table,   // int64 [P, 7]
         const Tensor& taps,    // int32 [any]
         const Tensor& picks,   // int64 [N, 4]
         const Tensor& out) {   // [N, C, h, w]
  const auto params = augment_args(levels, table, taps, picks, out);
  const CudaDeviceGuard guard(out);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(out));
  check_launch("augment_fwd", augment_fwd(params, stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("augment_fwd", TORCH_BOX(&fwd));
}

}  // namespace cyclegan_fast
