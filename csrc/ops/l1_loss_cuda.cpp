// SPDX-License-Identifier: MIT
// l1_loss on CUDA: registers the raw ops, and hands checked tensors to the kernels.
#include "common/cuda_check.h"
#include "ops/loss_args.h"
#include "ops/loss_cuda.h"

namespace cyclegan_fast {
namespace {

void fwd(const Tensor& a,             // any shape
         const Tensor& b,             // a's shape and memory order
         const Tensor& loss,          // acc [1]
         const OptionalTensor& sign,  // int8, a's shape and memory order
         const Tensor& workspace) {   // acc, at least loss_workspace(numel)
  const auto params = l1_loss_fwd_args(a, b, loss, sign, workspace);
  const CudaDeviceGuard guard(a);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(a));
  check_launch("l1_loss_fwd", l1_loss_fwd(params, stream));
}

void bwd(const Tensor& grad_loss,       // acc [1]
         const Tensor& sign,            // int8, any shape
         const OptionalTensor& grad_a,  // sign's shape and memory order, as below
         const OptionalTensor& grad_b) {
  const auto params = l1_loss_bwd_args(grad_loss, sign, grad_a, grad_b);
  const CudaDeviceGuard guard(sign);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(sign));
  check_launch("l1_loss_bwd", l1_loss_bwd(params, stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("l1_loss_fwd", TORCH_BOX(&fwd));
  library.impl("l1_loss_bwd", TORCH_BOX(&bwd));
}

}  // namespace cyclegan_fast
