// SPDX-License-Identifier: MIT
// generator_loss: tensors checked and turned into params, for the CPU and the CUDA side alike.
#pragma once

#include "ops/generator_loss.h"
#include "ops/loss_args.h"

namespace cyclegan_fast {

// One of the terms, its gradient and its target; counts its chunks in.
inline GeneratorLossTerm generator_loss_term(const Checker& check, int loss, const char* name,
                                             const OptionalTensor& made, const char* grad_name,
                                             const OptionalTensor& grad, const Tensor& first,
                                             Dtype dtype, int64_t& partial) {
  if (!made) {
    if (grad) check.fail(grad_name, text("absent as ", name), "a tensor");
    return {loss, nullptr, nullptr, 0};
  }
  check_flat(check, name, *made, first, dtype);
  if (grad) check_flat(check, grad_name, *grad, first, dtype);
  const int64_t begin = partial;
  partial += loss_workspace(made->numel());
  return {loss, data(made), mutable_data(grad), begin};
}

inline GeneratorLossFwdParams generator_loss_fwd_args(
    const Tensor& pred_a, const Tensor& pred_b, const Tensor& rec_a, const Tensor& rec_b,
    const OptionalTensor& idt_a, const OptionalTensor& idt_b, const Tensor& real_a,
    const Tensor& real_b, const Tensor& weights, const OptionalTensor& scale, bool tanh,
    const Tensor& losses, const Tensor& total, const OptionalTensor& grad_pred_a,
    const OptionalTensor& grad_pred_b, const OptionalTensor& grad_rec_a,
    const OptionalTensor& grad_rec_b, const OptionalTensor& grad_idt_a,
    const OptionalTensor& grad_idt_b, const Tensor& workspace) {
  const Checker check("generator_loss_fwd", pred_a);
  const Dtype dtype = check.dtype("pred_a", pred_a), acc = accumulator(dtype);
  const Dtype target_dtype = check.dtype("real_a", real_a);
  if (target_dtype != dtype && target_dtype != acc)
    check.fail("real_a", text("of dtype ", name(dtype), " or ", name(acc)), name(target_dtype));
  check_flat(check, "real_a", real_a, rec_a, target_dtype);
  check_flat(check, "real_b", real_b, rec_b, target_dtype);
  check.contiguous("weights", weights, {kGeneratorTerms - kAdversarialTerms}, acc);
  if (scale) check_scalar(check, "scale", *scale, acc);
  check.contiguous("losses", losses, {kGeneratorTerms}, acc);
  check_scalar(check, "total", total, acc);
  check.workspace(
      "workspace", workspace,
      generator_loss_workspace(pred_a.numel(), pred_b.numel(), rec_a.numel(), rec_b.numel()), acc);
  int64_t partial = 0;
  const auto term = [&](int loss, const char* name, const OptionalTensor& made,
                        const char* grad_name, const OptionalTensor& grad, const Tensor& first) {
    return generator_loss_term(check, loss, name, made, grad_name, grad, first, dtype, partial);
  };
  const GeneratorLossTerm none = {0, nullptr, nullptr, 0};
  const GeneratorLossTerm g_a = term(0, "pred_a", pred_a, "grad_pred_a", grad_pred_a, pred_a);
  const GeneratorLossTerm g_b = term(1, "pred_b", pred_b, "grad_pred_b", grad_pred_b, pred_b);
  const GeneratorLossTerm cycle_a = term(2, "rec_a", rec_a, "grad_rec_a", grad_rec_a, rec_a);
  const GeneratorLossTerm cycle_b = term(3, "rec_b", rec_b, "grad_rec_b", grad_rec_b, rec_b);
  const GeneratorLossTerm of_a = term(4, "idt_a", idt_a, "grad_idt_a", grad_idt_a, rec_b);
  const GeneratorLossTerm of_b = term(5, "idt_b", idt_b, "grad_idt_b", grad_idt_b, rec_a);
  const auto chunks = [](const Tensor& x) { return loss_workspace(x.numel()); };
  return {dtype,
          target_dtype,
          tanh,
          {{pred_a.numel(), chunks(pred_a), nullptr, {g_a, none}},
           {pred_b.numel(), chunks(pred_b), nullptr, {g_b, none}},
           {rec_a.numel(), chunks(rec_a), data(real_a), {cycle_a, of_b}},
           {rec_b.numel(), chunks(rec_b), data(real_b), {cycle_b, of_a}}},
          data(weights),
          data(scale),
          mutable_data(losses),
          mutable_data(total),
          mutable_data(workspace)};
}

inline GeneratorLossBwdParams generator_loss_bwd_args(const Tensor& grad_total,
                                                      const OptionalTensor (&grads)[6],
                                                      const OptionalTensor (&scaled)[6]) {
  const Checker check("generator_loss_bwd", grad_total);
  constexpr const char* kNames[] = {"pred_a", "pred_b", "rec_a", "rec_b", "idt_a", "idt_b"};
  GeneratorLossBwdParams params = {Dtype::kFloat32, data(grad_total), {}};
  bool any = false;
  for (int i = 0; i < kGeneratorTerms; ++i) {
    if (!grads[i] || !scaled[i]) continue;
    const Dtype dtype = check.dtype(kNames[i], *grads[i]);
    if (any && dtype != params.dtype) check.fail(kNames[i], "of one dtype", name(dtype));
    params.dtype = dtype;
    any = true;
    check_flat(check, kNames[i], *scaled[i], *grads[i], dtype);
    const int64_t numel = grads[i]->numel();
    params.terms[i] = {numel, loss_workspace(numel), data(grads[i]), mutable_data(scaled[i])};
  }
  if (!any) check.fail("grads", "given", "none");
  check_scalar(check, "grad_total", grad_total, accumulator(params.dtype));
  return params;
}

}  // namespace cyclegan_fast
