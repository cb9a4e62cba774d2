// SPDX-License-Identifier: MIT
// l1_loss and lsgan_loss: tensors checked and turned into params, for the CPU and the CUDA side.
#pragma once

#include "common/check.h"
#include "ops/l1_loss.h"
#include "ops/loss.h"
#include "ops/lsgan_loss.h"

namespace cyclegan_fast {

// Tensors are read flat: each must fill one stretch of memory, and all in the same order.
inline void check_order(const Checker& check, const char* argument, const Tensor& x,
                        const Tensor& first) {
  const auto sizes = first.sizes();
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

inline void check_flat(const Checker& check, const char* argument, const Tensor& x,
                       const Tensor& first, Dtype dtype) {
  const auto sizes = first.sizes();
  check.like(argument, x, Shape(sizes.begin(), sizes.end()), dtype);
  check_order(check, argument, x, first);
}

inline void check_sign(const Checker& check, const Tensor& sign, const Tensor& first) {
  const auto sizes = first.sizes();
  check.whole("sign", sign, Shape(sizes.begin(), sizes.end()), ScalarType::Char);
  check_order(check, "sign", sign, first);
}

inline void check_scalar(const Checker& check, const char* argument, const Tensor& x, Dtype acc) {
  if (x.numel() != 1) check.fail(argument, "of one element", list_text(x.sizes()));
  check.workspace(argument, x, 1, acc);
}

inline L1LossFwdParams l1_loss_fwd_args(const Tensor& a, const Tensor& b, const Tensor& loss,
                                        const OptionalTensor& sign, const Tensor& workspace) {
  const Checker check("l1_loss_fwd", a);
  const Dtype dtype = check.dtype("a", a), acc = accumulator(dtype);
  check_flat(check, "a", a, a, dtype);
  check_flat(check, "b", b, a, dtype);
  check_scalar(check, "loss", loss, acc);
  if (sign) check_sign(check, *sign, a);
  check.workspace("workspace", workspace, loss_workspace(a.numel()), acc);
  return {dtype,
          a.numel(),
          data(a),
          data(b),
          mutable_data(loss),
          static_cast<int8_t*>(mutable_data(sign)),
          mutable_data(workspace)};
}

inline L1LossBwdParams l1_loss_bwd_args(const Tensor& grad_loss, const Tensor& sign,
                                        const OptionalTensor& grad_a,
                                        const OptionalTensor& grad_b) {
  const Checker check("l1_loss_bwd", sign);
  if (!grad_a && !grad_b) check.fail("grad_a or grad_b", "given", "neither");
  const Dtype dtype = grad_a ? check.dtype("grad_a", *grad_a) : check.dtype("grad_b", *grad_b);
  check_scalar(check, "grad_loss", grad_loss, accumulator(dtype));
  check_sign(check, sign, sign);
  if (grad_a) check_flat(check, "grad_a", *grad_a, sign, dtype);
  if (grad_b) check_flat(check, "grad_b", *grad_b, sign, dtype);
  return {dtype,
          sign.numel(),
          data(grad_loss),
          static_cast<const int8_t*>(data(sign)),
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
