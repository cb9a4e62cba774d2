// SPDX-License-Identifier: MIT
// generator_loss on the CPU: registers the raw ops and shares the chunks out among the threads.
#include "ops/generator_loss_args.h"
#include "ops/generator_loss_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

void generator_loss_fwd(const Tensor& pred_a,         // any shape
                        const Tensor& pred_b,         // any shape
                        const Tensor& rec_a,          // any shape
                        const Tensor& rec_b,          // any shape
                        const OptionalTensor& idt_a,  // rec_b's shape and memory order
                        const OptionalTensor& idt_b,  // rec_a's shape and memory order
                        const Tensor& real_a,   // rec_a's shape and memory order; its dtype or acc
                        const Tensor& real_b,   // rec_b's shape and memory order, real_a's dtype
                        const Tensor& weights,  // acc [4]
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
  const auto& kernels = generator_loss_kernels();
  parallel_for(generator_loss_chunks(params), kLossChunk,
               [&](int64_t begin, int64_t end) { kernels.fwd(params, begin, end); });
  kernels.finish(params);
}

void generator_loss_bwd(const Tensor& grad_total,  // acc [1]
                        const OptionalTensor& grad_pred_a, const OptionalTensor& grad_pred_b,
                        const OptionalTensor& grad_rec_a, const OptionalTensor& grad_rec_b,
                        const OptionalTensor& grad_idt_a, const OptionalTensor& grad_idt_b,
                        const OptionalTensor& scaled_pred_a, const OptionalTensor& scaled_pred_b,
                        const OptionalTensor& scaled_rec_a, const OptionalTensor& scaled_rec_b,
                        const OptionalTensor& scaled_idt_a, const OptionalTensor& scaled_idt_b) {
  const auto params = generator_loss_bwd_args(
      grad_total, {grad_pred_a, grad_pred_b, grad_rec_a, grad_rec_b, grad_idt_a, grad_idt_b},
      {scaled_pred_a, scaled_pred_b, scaled_rec_a, scaled_rec_b, scaled_idt_a, scaled_idt_b});
  int64_t chunks = 0;
  for (const auto& term : params.terms) chunks += term.chunks;
  parallel_for(chunks, kLossChunk, [&](int64_t begin, int64_t end) {
    generator_loss_kernels().bwd(params, begin, end);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("generator_loss_fwd", TORCH_BOX(&generator_loss_fwd));
  library.impl("generator_loss_bwd", TORCH_BOX(&generator_loss_bwd));
}

}  // namespace cyclegan_fast
