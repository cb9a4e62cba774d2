// SPDX-License-Identifier: MIT
// pool_exchange on CUDA: registers the raw op, and hands checked tensors to the kernel.
#include "ops/pool_exchange_cuda.h"

#include "common/cuda_check.h"
#include "ops/pool_exchange_args.h"

namespace cyclegan_fast {
namespace {

void fwd(const Tensor& rows,      // [size + 1, C, H, W]
         const Tensor& pictures,  // [N, C, H, W], rows' layout
         const Tensor& take,      // int64 [N]
         const Tensor& put,       // int64 [N]
         const Tensor& shown) {   // [N, C, H, W], rows' layout
  const auto params = pool_exchange_args(rows, pictures, take, put, shown);
  const CudaDeviceGuard guard(rows);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(rows));
  check_launch("pool_exchange_fwd", pool_exchange_fwd(params, stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("pool_exchange_fwd", TORCH_BOX(&fwd));
}

}  // namespace cyclegan_fast
