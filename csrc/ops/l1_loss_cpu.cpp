// SPDX-License-Identifier: MIT
// l1_loss on the CPU: registers the raw ops and shares the chunks out among the threads.
#include "ops/loss_args.h"
#include "ops/loss_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

void l1_loss_fwd(const Tensor& a,             // any shape
                 const Tensor& b,             // a's shape and memory order
                 const Tensor& loss,          // acc [1]
                 const OptionalTensor& sign,  // int8, a's shape and memory order
                 const Tensor& workspace) {   // acc, at least loss_workspace(numel)
  const auto params = l1_loss_fwd_args(a, b, loss, sign, workspace);
  parallel_for(loss_workspace(params.numel), kLossChunk,
               [&](int64_t begin, int64_t end) { l1_loss_kernels().fwd(params, begin, end); });
  l1_loss_kernels().finish(params);
}

void l1_loss_bwd(const Tensor& grad_loss,       // acc [1]
                 const Tensor& sign,            // int8, any shape
                 const OptionalTensor& grad_a,  // sign's shape and memory order, as below
                 const OptionalTensor& grad_b) {
  const auto params = l1_loss_bwd_args(grad_loss, sign, grad_a, grad_b);
  parallel_for(loss_workspace(params.numel), kLossChunk,
               [&](int64_t begin, int64_t end) { l1_loss_kernels().bwd(params, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("l1_loss_fwd", TORCH_BOX(&l1_loss_fwd));
  library.impl("l1_loss_bwd", TORCH_BOX(&l1_loss_bwd));
}

}  // namespace cyclegan_fast
