// SPDX-License-Identifier: MIT
// l1_loss and lsgan_loss: tensors checked and turned into params, for the CPU and the CUDA side.
#pragma once

#include "common/check.h"
#include "ops/l1_loss.h"
#include "ops/loss.h"
#include "ops/lsgan_loss.h"

namespace cyclegan_fast {

// Tensors are read flat: each must fill one stretch of memory, and all in the same order.
inline void check_flat(const Checker& check, const char* argument, const Tensor& x,
                       const Tensor& first, Dtype dtype) {
  const auto sizes = first.sizes();
  check.like(argument, x, Shape(sizes.begin(), sizes.end()), dtype);
  const auto same_order = [&] {
    const auto strides = x.strides(), expected = first.strides();
    for (size_t d = 0; d < sizes.size(); ++d)
      if (sizes[d] != 1 && strides[d] != expected[d]) return false;
    return true;
  };
  const bool dense =
      x.is_contiguous() || (x.dim() == 4 && Checker::has_layout(x, Layout::kChannelsLast));
  if (!dense || !same_order())
    check.fail(argument, "contiguous or channels_last as the first tensor",
               "strides " + list_text(x.strides()));
}

inline void check_scalar(const Checker& check, const char* argument, const Tensor& x, Dtype acc) {
  if (x.numel() != 1) check.fail(argument, "of one element", list_text(x.sizes()));
  check.workspace(argument, x, 1, acc);
}

inline L1LossFwdParams l1_loss_fwd_args(const Tensor& a, const Tensor& b, const Tensor& loss,
                                        const Tensor& workspace) {
  const Checker check("l1_loss_fwd", a);
  const Dtype dtype = check.dtype("a", a), acc = accumulator(dtype);
  check_flat(check, "a", a, a, dtype);
  check_flat(check, "b", b, a, dtype);
  check_scalar(check, "loss", loss, acc);
  check.workspace("workspace", workspace, loss_workspace(a.numel()), acc);
  return {dtype, a.numel(), data(a), data(b), mutable_data(loss), mutable_data(workspace)};
}

inline L1LossBwdParams l1_loss_bwd_args(const Tensor& grad_loss, const Tensor& a, const Tensor& b,
                                        const OptionalTensor& grad_a,
                                        const OptionalTensor& grad_b) {
  const Checker check("l1_loss_bwd", a);
  const Dtype dtype = check.dtype("a", a);
  check_scalar(check, "grad_loss", grad_loss, accumulator(dtype));
  check_flat(check, "a", a, a, dtype);
  check_flat(check, "b", b, a, dtype);
  if (grad_a) check_flat(check, "grad_a", *grad_a, a, dtype);
  if (grad_b) check_flat(check, "grad_b", *grad_b, a, dtype);
  return {dtype,
          a.numel(),
          data(grad_loss),
          data(a),
          data(b),
          mutable_data(grad_a),
          mutable_data(grad_b)};
}

inline LsganLossFwdParams lsgan_loss_fwd_args(const Tensor& pred, const OptionalTensor& target,
                                              double target_value, const Tensor& loss,
                                              const Tensor& workspace) {
  const Checker check("lsgan_loss_fwd", pred);
  const Dtype dtype = check.dtype("pred", pred), acc = accumulator(dtype);
  check_flat(check, "pred", pred, pred, dtype);
  if (target) check_flat(check, "target", *target, pred, dtype);
  check_scalar(check, "loss", loss, acc);
  check.workspace("workspace", workspace, loss_workspace(pred.numel()), acc);
  return {dtype,        pred.numel(),       target_value,           data(pred),
          data(target), mutable_data(loss), mutable_data(workspace)};
}

inline LsganLossBwdParams lsgan_loss_bwd_args(const Tensor& grad_loss, const Tensor& pred,
                                              const OptionalTensor& target, double target_value,
                                              const OptionalTensor& grad_pred,
                                              const OptionalTensor& grad_target) {
  const Checker check("lsgan_loss_bwd", pred);
  const Dtype dtype = check.dtype("pred", pred);
  check_scalar(check, "grad_loss", grad_loss, accumulator(dtype));
  check_flat(check, "pred", pred, pred, dtype);
  if (target) check_flat(check, "target", *target, pred, dtype);
  if (grad_pred) check_flat(check, "grad_pred", *grad_pred, pred, dtype);
  if (grad_target) check_flat(check, "grad_target", *grad_target, pred, dtype);
  return {dtype,
          pred.numel(),
          target_value,
          data(grad_loss),
          data(pred),
          data(target),
          mutable_data(grad_pred),
          mutable_data(grad_target)};
}

}  // namespace cyclegan_fast
