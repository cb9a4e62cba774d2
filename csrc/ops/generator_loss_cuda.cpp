// SPDX-License-Identifier: MIT
// generator_loss on CUDA: registers the raw ops, and hands checked tensors to the kernels.
#include "ops/generator_loss_cuda.h"

#include "common/cuda_check.h"
#include "ops/generator_loss_args.h"

namespace cyclegan_fast {
namespace {

void fwd(const Tensor& pred_a,         // any shape
         const Tensor& pred_b,         // any shape
         const Tensor& rec_a,          // any shape
         const Tensor& rec_b,          // any shape
         const OptionalTensor& idt_a,  // rec_b's shape and memory order
         const OptionalTensor& idt_b,  // rec_a's shape and memory order
         const Tensor& real_a,         // rec_a's shape and memory order; its dtype or acc
         const Tensor& real_b,         // rec_b's shape and memory order, real_a's dtype
         const Tensor& weights,        // acc [4]
         const OptionalTensor& scale,  // acc [1]
         bool tanh,
         const Tensor& losses,               // acc [6]
         const Tensor& total,                // acc [1]
         const OptionalTensor& grad_pred_a,  // as what they are gradients of
         const OptionalTensor& grad_pred_b, const OptionalTensor& grad_rec_a,
         const OptionalTensor& grad_rec_b, const OptionalTensor& grad_idt_a,
         const OptionalTensor& grad_idt_b,
         const Tensor& workspace) {  // acc, at least generator_loss_workspace
  const auto params = generator_loss_fwd_args(
      pred_a, pred_b, rec_a, rec_b, idt_a, idt_b, real_a, real_b, weights, scale, tanh, losses,
      total, grad_pred_a, grad_pred_b, grad_rec_a, grad_rec_b, grad_idt_a, grad_idt_b, workspace);
  const CudaDeviceGuard guard(pred_a);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(pred_a));
  check_launch("generator_loss_fwd", generator_loss_fwd(params, stream));
}

void bwd(const Tensor& grad_total,  // acc [1]
         const OptionalTensor& grad_pred_a, const OptionalTensor& grad_pred_b,
         const OptionalTensor& grad_rec_a, const OptionalTensor& grad_rec_b,
         const OptionalTensor& grad_idt_a, const OptionalTensor& grad_idt_b,
         const OptionalTensor& scaled_pred_a, const OptionalTensor& scaled_pred_b,
         const OptionalTensor& scaled_rec_a, const OptionalTensor& scaled_rec_b,
         const OptionalTensor& scaled_idt_a, const OptionalTensor& scaled_idt_b) {
  const auto params = generator_loss_bwd_args(
      grad_total, {grad_pred_a, grad_pred_b, grad_rec_a, grad_rec_b, grad_idt_a, grad_idt_b},
      {scaled_pred_a, scaled_pred_b, scaled_rec_a, scaled_rec_b, scaled_idt_a, scaled_idt_b});
  const CudaDeviceGuard guard(grad_total);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(grad_total));
  check_launch("generator_loss_bwd", generator_loss_bwd(params, stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("generator_loss_fwd", TORCH_BOX(&fwd));
  library.impl("generator_loss_bwd", TORCH_BOX(&bwd));
}

}  // namespace cyclegan_fast
