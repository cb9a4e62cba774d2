// SPDX-License-Identifier: MIT
// instance_norm_act: tensors checked and turned into params, for the CPU and the CUDA side alike.
#pragma once

#include <array>
#include <initializer_list>
#include <optional>
#include <stdexcept>

#include "common/check.h"
#include "ops/instance_norm_act.h"

namespace cyclegan_fast {

inline Strided strided(const OptionalTensor& x) {
  if (!x) return {};
  const auto strides = x->strides();
  return {data(x), strides[0], strides[1], strides[2], strides[3]};
}

// What forward and backward have in common; x is the tensor that decides shape, dtype and layout.
inline InstanceNormActSizes instance_norm_act_sizes(const Checker& check, const Tensor& x,
                                                    const OptionalTensor& weight,
                                                    const OptionalTensor& bias, int64_t act,
                                                    double negative_slope, int64_t pad) {
  if (act < 0 || act > 2) check.fail("act", "0 none, 1 relu or 2 leaky_relu", text(act));
  const Layout layout = check.layout("x", x);
  const auto sizes = x.sizes();  // N C H W
  const InstanceNormActSizes result = {.dtype = check.dtype("x", x),
                                       .channels_last = layout == Layout::kChannelsLast,
                                       .n = sizes[0],
                                       .c = sizes[1],
                                       .h = sizes[2],
                                       .w = sizes[3],
                                       .pad = pad,
                                       .act = static_cast<int>(act),
                                       .negative_slope = negative_slope};
  check.pad(pad, result.h, result.w);
  const Dtype acc = accumulator(result.dtype);
  if (weight) check.contiguous("weight", *weight, {result.c}, acc);
  if (bias) check.contiguous("bias", *bias, {result.c}, acc);
  return result;
}

// workspace_size(sizes) tells how many elements the device's kernels need.
template <class WorkspaceSize>
InstanceNormActFwdParams instance_norm_act_fwd_args(const Tensor& x, const OptionalTensor& weight,
                                                    const OptionalTensor& bias,
                                                    const OptionalTensor& residual, int64_t act,
                                                    double negative_slope, int64_t pad, double eps,
                                                    const Tensor& y, const Tensor& mean,
                                                    const Tensor& rstd, const Tensor& workspace,
                                                    const WorkspaceSize& workspace_size) {
  const Checker check("instance_norm_act_fwd", x);
  const auto sizes = instance_norm_act_sizes(check, x, weight, bias, act, negative_slope, pad);
  const Dtype acc = accumulator(sizes.dtype);
  const Layout layout = sizes.channels_last ? Layout::kChannelsLast : Layout::kContiguous;
  const Dtype dtype = sizes.dtype;
  const int64_t n = sizes.n, c = sizes.c, h = sizes.h, w = sizes.w;
  if (residual) check.like("residual", *residual, {n, c, h, w}, dtype);
  check.image("y", y, {n, c, h + 2 * pad, w + 2 * pad}, dtype, layout);
  check.contiguous("mean", mean, {n, c}, acc);
  check.contiguous("rstd", rstd, {n, c}, acc);
  check.workspace("workspace", workspace, workspace_size(sizes), acc);
  return {sizes,
          false,
          eps,
          data(x),
          data(weight),
          data(bias),
          strided(residual),
          mutable_data(y),
          mutable_data(mean),
          mutable_data(rstd),
          mutable_data(workspace),
          {}};
}

// Of a channels_last image: partial results that a convolution has left.
inline Partials instance_norm_act_partials(const Checker& check, const char* name,
                                           const Tensor& partial, int64_t rows,
                                           const InstanceNormActSizes& s) {
  if (!s.channels_last) check.fail("x", "channels_last", "the contiguous layout");
  constexpr int64_t kMostChunks = 64;
  const auto sizes = partial.sizes();
  const int64_t chunks = sizes.size() == 4 ? sizes[1] : 0;
  if (chunks < 1 || chunks > kMostChunks) {
    check.fail(name, text("[N, 1 to ", kMostChunks, " chunks, ", rows, ", C]"), list_text(sizes));
  }
  check.contiguous(name, partial, {s.n, chunks, rows, s.c}, accumulator(s.dtype));
  return {data(partial), chunks, 0, 0};
}

// Forward from moments of x that the convolution has left which made it.
inline InstanceNormActFwdParams instance_norm_act_finish_args(
    const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& residual, const Tensor& moments, int64_t each, int64_t pitch, int64_t act,
    double negative_slope, int64_t pad, double eps, const Tensor& y, const Tensor& mean,
    const Tensor& rstd) {
  auto params = instance_norm_act_fwd_args(x, weight, bias, residual, act, negative_slope, pad, eps,
                                           y, mean, rstd, mean, [](const auto&) { return 0; });
  const Checker check("instance_norm_act_finish", x);
  params.workspace = nullptr;
  params.moments = instance_norm_act_partials(check, "moments", moments, 3, params);
  const int64_t positions = params.h * pitch, chunks = params.moments.chunks;
  if (pitch < params.w) check.fail("pitch", text("at least the width ", params.w), text(pitch));
  if (each < 1 || each * chunks < positions - (pitch - params.w)) {
    check.fail("each", text("enough that ", chunks, " chunks hold ", positions, " positions"),
               text(each));
  }
  if (each * chunks >= int64_t{1} << 31 || positions >= int64_t{1} << 31) {
    check.fail("each and pitch", "such that positions can be counted in 32 bits",
               text(each, " and ", pitch));
  }
  params.moments.each = each;
  params.moments.pitch = pitch;
  return params;
}

// Forward where mean and rstd have been taken elsewhere.
inline InstanceNormActFwdParams instance_norm_act_apply_args(
    const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& residual, const Tensor& mean, const Tensor& rstd, int64_t act,
    double negative_slope, int64_t pad, const Tensor& y) {
  const Checker check("instance_norm_act_apply", x);
  const auto sizes = instance_norm_act_sizes(check, x, weight, bias, act, negative_slope, pad);
  const Dtype acc = accumulator(sizes.dtype);
  const Layout layout = sizes.channels_last ? Layout::kChannelsLast : Layout::kContiguous;
  const int64_t n = sizes.n, c = sizes.c, h = sizes.h, w = sizes.w;
  if (residual) check.like("residual", *residual, {n, c, h, w}, sizes.dtype);
  check.contiguous("mean", mean, {n, c}, acc);
  check.contiguous("rstd", rstd, {n, c}, acc);
  check.image("y", y, {n, c, h + 2 * pad, w + 2 * pad}, sizes.dtype, layout);
  return {sizes,
          true,
          0.0,
          data(x),
          data(weight),
          data(bias),
          strided(residual),
          mutable_data(y),
          const_cast<void*>(data(mean)),  // read alone, as `given` says
          const_cast<void*>(data(rstd)),
          nullptr,
          {}};
}

template <class WorkspaceSize>
InstanceNormActBwdParams instance_norm_act_bwd_args(
    const OptionalTensor& grad_y, const OptionalTensor& grad_skip, const Tensor& x,
    const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
    const Tensor& rstd, int64_t act, double negative_slope, int64_t pad, const Tensor& grad_x,
    const OptionalTensor& grad_residual, const Tensor& sums, const Tensor& workspace,
    const WorkspaceSize& workspace_size) {
  const Checker check("instance_norm_act_bwd", x);
  const auto sizes = instance_norm_act_sizes(check, x, weight, bias, act, negative_slope, pad);
  const Dtype acc = accumulator(sizes.dtype);
  const Layout layout = sizes.channels_last ? Layout::kChannelsLast : Layout::kContiguous;
  const Dtype dtype = sizes.dtype;
  const int64_t n = sizes.n, c = sizes.c, h = sizes.h, w = sizes.w;
  if (!grad_y && !grad_skip) check.fail("grad_y or grad_skip", "given", "neither");
  if (grad_y) check.image("grad_y", *grad_y, {n, c, h + 2 * pad, w + 2 * pad}, dtype, layout);
  if (grad_skip) check.like("grad_skip", *grad_skip, {n, c, h, w}, dtype);
  check.contiguous("mean", mean, {n, c}, acc);
  check.contiguous("rstd", rstd, {n, c}, acc);
  check.image("grad_x", grad_x, {n, c, h, w}, dtype, layout);
  if (grad_residual) check.image("grad_residual", *grad_residual, {n, c, h, w}, dtype, layout);
  check.contiguous("sums", sums, {2, n, c}, acc);
  check.workspace("workspace", workspace, workspace_size(sizes), acc);
  return {sizes,
          data(grad_y),
          strided(grad_skip),
          data(x),
          data(weight),
          data(bias),
          data(mean),
          data(rstd),
          mutable_data(grad_x),
          mutable_data(grad_residual),
          mutable_data(sums),
          mutable_data(workspace),
          {}};
}

// Backward from partial sums that the convolution has left which read the norm's result.
inline InstanceNormActBwdParams instance_norm_act_bwd_finish_args(
    const OptionalTensor& grad_y, const OptionalTensor& grad_skip, const Tensor& x,
    const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
    const Tensor& rstd, const Tensor& partial, int64_t act, double negative_slope, int64_t pad,
    const Tensor& grad_x, const OptionalTensor& grad_residual, const Tensor& sums) {
  auto params = instance_norm_act_bwd_args(grad_y, grad_skip, x, weight, bias, mean, rstd, act,
                                           negative_slope, pad, grad_x, grad_residual, sums, sums,
                                           [](const auto&) { return 0; });
  const Checker check("instance_norm_act_bwd_finish", x);
  params.workspace = nullptr;
  params.partial = instance_norm_act_partials(check, "partial", partial, 2, params);
  return params;
}

inline OptionalTensor unless_empty(const Tensor& x) {
  return x.numel() > 0 ? OptionalTensor(x) : std::nullopt;
}

// Both calls of a pair: args(i) checks call i. `lengths` are those of all lists of tensors.
template <class Args>
auto instance_norm_act_pair_args(const char* op, const Tensors& x,
                                 std::initializer_list<size_t> lengths, const Args& args) {
  for (const size_t length : lengths) {
    if (length != 2) {
      throw std::runtime_error(text("cyclegan_fast_C::", op,
                                    ": lists must hold two tensors each, got one of ",
                                    static_cast<int64_t>(length)));
    }
  }
  const std::array both{args(0), args(1)};
  const Checker check(op, x[0]);
  const auto sizes = x[0].sizes();
  check.like("x[1]", x[1], {sizes[0], sizes[1], sizes[2], sizes[3]}, both[0].dtype);
  if (both[0].channels_last != both[1].channels_last) {
    check.fail("x[1]", "of the layout of x[0]", "the other");
  }
  return both;
}

// Of two calls whose x have the same sizes, dtype and layout.
template <class WorkspaceSize>
auto instance_norm_act_fwd_pair_args(const Tensors& x, const OptionalTensors& weight,
                                     const OptionalTensors& bias, const OptionalTensors& residual,
                                     int64_t act, double negative_slope, int64_t pad, double eps,
                                     const Tensors& y, const Tensors& mean, const Tensors& rstd,
                                     const Tensors& workspace,
                                     const WorkspaceSize& workspace_size) {
  const auto lengths = {x.size(), weight.size(), bias.size(), residual.size(),
                        y.size(), mean.size(),   rstd.size(), workspace.size()};
  return instance_norm_act_pair_args("instance_norm_act_fwd_pair", x, lengths, [&](int i) {
    return instance_norm_act_fwd_args(x[i], weight[i], bias[i], residual[i], act, negative_slope,
                                      pad, eps, y[i], mean[i], rstd[i], workspace[i],
                                      workspace_size);
  });
}

template <class WorkspaceSize>
auto instance_norm_act_bwd_pair_args(const OptionalTensors& grad_y,
                                     const OptionalTensors& grad_skip, const Tensors& x,
                                     const OptionalTensors& weight, const OptionalTensors& bias,
                                     const Tensors& mean, const Tensors& rstd, int64_t act,
                                     double negative_slope, int64_t pad, const Tensors& grad_x,
                                     const Tensors& grad_residual, const Tensors& sums,
                                     const Tensors& workspace,
                                     const WorkspaceSize& workspace_size) {
  const auto lengths = {grad_y.size(),        grad_skip.size(), x.size(),        weight.size(),
                        bias.size(),          mean.size(),      rstd.size(),     grad_x.size(),
                        grad_residual.size(), sums.size(),      workspace.size()};
  return instance_norm_act_pair_args("instance_norm_act_bwd_pair", x, lengths, [&](int i) {
    return instance_norm_act_bwd_args(
        grad_y[i], grad_skip[i], x[i], weight[i], bias[i], mean[i], rstd[i], act, negative_slope,
        pad, grad_x[i], unless_empty(grad_residual[i]), sums[i], workspace[i], workspace_size);
  });
}

inline auto instance_norm_act_finish_pair_args(const Tensors& x, const OptionalTensors& weight,
                                               const OptionalTensors& bias,
                                               const OptionalTensors& residual,
                                               const Tensors& moments, int64_t each, int64_t pitch,
                                               int64_t act, double negative_slope, int64_t pad,
                                               double eps, const Tensors& y, const Tensors& mean,
                                               const Tensors& rstd) {
  const auto lengths = {x.size(),       weight.size(), bias.size(), residual.size(),
                        moments.size(), y.size(),      mean.size(), rstd.size()};
  return instance_norm_act_pair_args("instance_norm_act_finish_pair", x, lengths, [&](int i) {
    return instance_norm_act_finish_args(x[i], weight[i], bias[i], residual[i], moments[i], each,
                                         pitch, act, negative_slope, pad, eps, y[i], mean[i],
                                         rstd[i]);
  });
}

inline auto instance_norm_act_bwd_finish_pair_args(
    const OptionalTensors& grad_y, const OptionalTensors& grad_skip, const Tensors& x,
    const OptionalTensors& weight, const OptionalTensors& bias, const Tensors& mean,
    const Tensors& rstd, const Tensors& partial, int64_t act, double negative_slope, int64_t pad,
    const Tensors& grad_x, const Tensors& grad_residual, const Tensors& sums) {
  const auto lengths = {grad_y.size(),        grad_skip.size(), x.size(),     weight.size(),
                        bias.size(),          mean.size(),      rstd.size(),  partial.size(),
                        grad_residual.size(), sums.size(),      grad_x.size()};
  return instance_norm_act_pair_args("instance_norm_act_bwd_finish_pair", x, lengths, [&](int i) {
    return instance_norm_act_bwd_finish_args(grad_y[i], grad_skip[i], x[i], weight[i], bias[i],
                                             mean[i], rstd[i], partial[i], act, negative_slope, pad,
                                             grad_x[i], unless_empty(grad_residual[i]), sums[i]);
  });
}

}  // namespace cyclegan_fast
