// SPDX-License-Identifier: MIT
// lsgan_loss on the CPU: registers the raw ops and shares the chunks out among the threads.
#include "ops/loss_args.h"
#include "ops/loss_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

void lsgan_loss_fwd(const Tensor& pred,            // any shape
                    const OptionalTensor& target,  // pred's shape and memory order
                    double target_value,
                    const Tensor& loss,         // acc [1]
                    const Tensor& workspace) {  // acc, at least loss_workspace(numel)
  const auto params = lsgan_loss_fwd_args(pred, target, target_value, loss, workspace);
  parallel_for(loss_workspace(params.numel), kLossChunk,
               [&](int64_t begin, int64_t end) { lsgan_loss_kernels().fwd(params, begin, end); });
  lsgan_loss_kernels().finish(params);
}

void lsgan_loss_bwd(const Tensor& grad_loss,  // acc [1]
                    const Tensor& pred, const OptionalTensor& target, double target_value,
                    const OptionalTensor& grad_pred,  // pred's shape, as below
                    const OptionalTensor& grad_target) {
  const auto params =
      lsgan_loss_bwd_args(grad_loss, pred, target, target_value, grad_pred, grad_target);
  parallel_for(loss_workspace(params.numel), kLossChunk,
               [&](int64_t begin, int64_t end) { lsgan_loss_kernels().bwd(params, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("lsgan_loss_fwd", TORCH_BOX(&lsgan_loss_fwd));
  library.impl("lsgan_loss_bwd", TORCH_BOX(&lsgan_loss_bwd));
}

}  // namespace cyclegan_fast
