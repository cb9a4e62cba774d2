// SPDX-License-Identifier: MIT
// lsgan_loss on CUDA: registers the raw ops, and hands checked tensors to the kernels.
#include "common/cuda_check.h"
#include "ops/loss_args.h"
#include "ops/loss_cuda.h"

namespace cyclegan_fast {
namespace {

void fwd(const Tensor& pred,            // any shape
         const OptionalTensor& target,  // pred's shape and memory order
         double target_value,           // where there is no target
         const Tensor& loss,            // acc [1]
         const Tensor& workspace) {     // acc, at least loss_workspace(numel)
  const auto params = lsgan_loss_fwd_args(pred, target, target_value, loss, workspace);
  const CudaDeviceGuard guard(pred);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(pred));
  check_launch("lsgan_loss_fwd", lsgan_loss_fwd(params, stream));
}

void bwd(const Tensor& grad_loss,  // acc [1]
         const Tensor& pred,       // any shape, that of all below
         const OptionalTensor& target, double target_value, const OptionalTensor& grad_pred,
         const OptionalTensor& grad_target) {
  const auto params =
      lsgan_loss_bwd_args(grad_loss, pred, target, target_value, grad_pred, grad_target);
  const CudaDeviceGuard guard(pred);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(pred));
  check_launch("lsgan_loss_bwd", lsgan_loss_bwd(params, stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("lsgan_loss_fwd", TORCH_BOX(&fwd));
  library.impl("lsgan_loss_bwd", TORCH_BOX(&bwd));
}

}  // namespace cyclegan_fast
