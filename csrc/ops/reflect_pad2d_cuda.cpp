// SPDX-License-Identifier: MIT
// reflect_pad2d on CUDA: registers the raw ops, and hands checked tensors to the kernels.
#include "ops/reflect_pad2d_cuda.h"

#include "common/cuda_check.h"
#include "ops/reflect_pad2d_args.h"

namespace cyclegan_fast {
namespace {

void fwd(const Tensor& x,  // [N, C, H, W]
         int64_t pad,
         const Tensor& y) {  // [N, C, H + 2 pad, W + 2 pad]
  const auto params = reflect_pad2d_args(x, y, pad, true);
  if (x.numel() == 0) return;
  const CudaDeviceGuard guard(x);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(x));
  check_launch("reflect_pad2d_fwd", reflect_pad2d_fwd(params, stream));
}

void copy(const Tensor& x,  // [N, C, H, W], any strides
          int64_t pad,
          const Tensor& y) {  // [N, C, H + 2 pad, W + 2 pad]
  const auto params = reflect_pad2d_copy_args(x, pad, y);
  if (x.numel() == 0) return;
  const CudaDeviceGuard guard(x);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(x));
  check_launch("reflect_pad2d_copy", reflect_pad2d_copy(params, stream));
}

void bwd(const Tensor& grad_y,  // [N, C, H + 2 pad, W + 2 pad]
         int64_t pad,
         const Tensor& grad_x) {  // [N, C, H, W]
  const auto params = reflect_pad2d_args(grad_x, grad_y, pad, false);
  if (grad_x.numel() == 0) return;
  const CudaDeviceGuard guard(grad_x);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(grad_x));
  check_launch("reflect_pad2d_bwd", reflect_pad2d_bwd(params, stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("reflect_pad2d_fwd", TORCH_BOX(&fwd));
  library.impl("reflect_pad2d_copy", TORCH_BOX(&copy));
  library.impl("reflect_pad2d_bwd", TORCH_BOX(&bwd));
}

}  // namespace cyclegan_fast
