// SPDX-License-Identifier: MIT
// instance_norm_act on CUDA: registers the raw ops, and hands checked tensors to the kernels.
#include "ops/instance_norm_act_cuda.h"

#include "common/cuda_check.h"
#include "ops/instance_norm_act_args.h"
#include "ops/instance_norm_act_plan.h"

namespace cyclegan_fast {
namespace {

int64_t workspace_size(const InstanceNormActSizes& s) {
  return instance_norm_act_cuda_workspace(s.n, s.c, s.h, s.w, s.channels_last);
}

// False where there is nothing to do. Kernels count the pixels of a plane in 32 bits.
bool has_work(const char* op, const Tensor& x, const InstanceNormActSizes& s) {
  constexpr int64_t kMostPixels = int64_t{1} << 30;
  if ((s.h + 2 * s.pad) * (s.w + 2 * s.pad) >= kMostPixels) {
    Checker(op, x).fail("x", text("of fewer than ", kMostPixels, " pixels per padded plane"),
                        list_text(x.sizes()));
  }
  return x.numel() > 0;
}

// The stride of a dimension of one element is never used: 0, so that it forbids no vector access.
Strided used_strides(Strided s, const InstanceNormActSizes& sizes) {
  if (sizes.n == 1) s.n = 0;
  if (sizes.c == 1) s.c = 0;
  if (sizes.h == 1) s.h = 0;
  if (sizes.w == 1) s.w = 0;
  return s;
}

// One call, or two on tensors of the same sizes: those of channels_last share a launch.
template <class Params>
void launch_on(const Tensor& x, const char* op, const Params* p, int count,
               cudaError_t (*nhwc)(const Params*, int, cudaStream_t),
               cudaError_t (*nchw)(const Params&, cudaStream_t)) {
  const CudaDeviceGuard guard(x);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(x));
  if (p->channels_last) return check_launch(op, nhwc(p, count, stream));
  for (int i = 0; i < count; ++i) check_launch(op, nchw(p[i], stream));
}

void launch_forward(const char* op, const Tensor& x, InstanceNormActFwdParams* p, int count = 1) {
  if (!has_work(op, x, *p)) return;
  for (int i = 0; i < count; ++i) p[i].residual = used_strides(p[i].residual, p[i]);
  launch_on(x, op, p, count, instance_norm_act_fwd_nhwc, instance_norm_act_fwd_nchw);
}

void launch_backward(const char* op, const Tensor& x, InstanceNormActBwdParams* p, int count = 1) {
  if (!has_work(op, x, *p)) return;
  for (int i = 0; i < count; ++i) p[i].grad_skip = used_strides(p[i].grad_skip, p[i]);
  launch_on(x, op, p, count, instance_norm_act_bwd_nhwc, instance_norm_act_bwd_nchw);
}

void instance_norm_act_fwd(const Tensor& x,                 // [N, C, H, W]
                           const OptionalTensor& weight,    // acc [C]
                           const OptionalTensor& bias,      // acc [C]
                           const OptionalTensor& residual,  // [N, C, H, W], any strides
                           int64_t act, double negative_slope, int64_t pad, double eps,
                           const Tensor& y,     // [N, C, H + 2 pad, W + 2 pad]
                           const Tensor& mean,  // acc [N, C]
                           const Tensor& rstd,  // acc [N, C]
                           const Tensor& workspace) {
  auto params = instance_norm_act_fwd_args(x, weight, bias, residual, act, negative_slope, pad, eps,
                                           y, mean, rstd, workspace, workspace_size);
  launch_forward("instance_norm_act_fwd", x, &params);
}

void instance_norm_act_apply(const Tensor& x,                 // [N, C, H, W]
                             const OptionalTensor& weight,    // acc [C]
                             const OptionalTensor& bias,      // acc [C]
                             const OptionalTensor& residual,  // [N, C, H, W], any strides
                             const Tensor& mean,              // acc [N, C]
                             const Tensor& rstd,              // acc [N, C]
                             int64_t act, double negative_slope, int64_t pad,
                             const Tensor& y) {  // [N, C, H + 2 pad, W + 2 pad]
  auto params = instance_norm_act_apply_args(x, weight, bias, residual, mean, rstd, act,
                                             negative_slope, pad, y);
  launch_forward("instance_norm_act_apply", x, &params);
}

void instance_norm_act_bwd(const OptionalTensor& grad_y,     // [N, C, H + 2 pad, W + 2 pad]
                           const OptionalTensor& grad_skip,  // [N, C, H, W], any strides
                           const Tensor& x,                  // [N, C, H, W]
                           const OptionalTensor& weight,     // acc [C]
                           const OptionalTensor& bias,       // acc [C]
                           const Tensor& mean,               // acc [N, C]
                           const Tensor& rstd,               // acc [N, C]
                           int64_t act, double negative_slope, int64_t pad,
                           const Tensor& grad_x,                 // [N, C, H, W]
                           const OptionalTensor& grad_residual,  // [N, C, H, W]
                           const Tensor& sums,                   // acc [2, N, C]
                           const Tensor& workspace) {
  auto params = instance_norm_act_bwd_args(grad_y, grad_skip, x, weight, bias, mean, rstd, act,
                                           negative_slope, pad, grad_x, grad_residual, sums,
                                           workspace, workspace_size);
  launch_backward("instance_norm_act_bwd", x, &params);
}

// Forward from what the convolution before it has left, channels_last.
void instance_norm_act_finish(const Tensor& x,                 // [N, C, H, W]
                              const OptionalTensor& weight,    // acc [C]
                              const OptionalTensor& bias,      // acc [C]
                              const OptionalTensor& residual,  // [N, C, H, W], any strides
                              const Tensor& moments,           // acc [N, chunks, 3, C]
                              int64_t each, int64_t pitch, int64_t act, double negative_slope,
                              int64_t pad, double eps,
                              const Tensor& y,       // [N, C, H + 2 pad, W + 2 pad]
                              const Tensor& mean,    // acc [N, C]
                              const Tensor& rstd) {  // acc [N, C]
  auto params = instance_norm_act_finish_args(x, weight, bias, residual, moments, each, pitch, act,
                                              negative_slope, pad, eps, y, mean, rstd);
  launch_forward("instance_norm_act_finish", x, &params);
}

// Backward from what the convolution behind it has left, channels_last.
void instance_norm_act_bwd_finish(const OptionalTensor& grad_y,     // [N, C, H + 2 pad, W + 2 pad]
                                  const OptionalTensor& grad_skip,  // [N, C, H, W], any strides
                                  const Tensor& x,                  // [N, C, H, W]
                                  const OptionalTensor& weight,     // acc [C]
                                  const OptionalTensor& bias,       // acc [C]
                                  const Tensor& mean,               // acc [N, C]
                                  const Tensor& rstd,               // acc [N, C]
                                  const Tensor& partial,            // acc [N, chunks, 2, C]
                                  int64_t act, double negative_slope, int64_t pad,
                                  const Tensor& grad_x,                 // [N, C, H, W]
                                  const OptionalTensor& grad_residual,  // [N, C, H, W]
                                  const Tensor& sums) {                 // acc [2, N, C]
  auto params =
      instance_norm_act_bwd_finish_args(grad_y, grad_skip, x, weight, bias, mean, rstd, partial,
                                        act, negative_slope, pad, grad_x, grad_residual, sums);
  launch_backward("instance_norm_act_bwd_finish", x, &params);
}

// Two calls whose x have the same sizes, dtype and layout.
void instance_norm_act_fwd_pair(Tensors x, OptionalTensors weight, OptionalTensors bias,
                                OptionalTensors residual, int64_t act, double negative_slope,
                                int64_t pad, double eps, Tensors y, Tensors mean, Tensors rstd,
                                Tensors workspace) {
  auto both = instance_norm_act_fwd_pair_args(x, weight, bias, residual, act, negative_slope, pad,
                                              eps, y, mean, rstd, workspace, workspace_size);
  launch_forward("instance_norm_act_fwd_pair", x[0], both.data(), 2);
}

void instance_norm_act_bwd_pair(OptionalTensors grad_y, OptionalTensors grad_skip, Tensors x,
                                OptionalTensors weight, OptionalTensors bias, Tensors mean,
                                Tensors rstd, int64_t act, double negative_slope, int64_t pad,
                                Tensors grad_x, Tensors grad_residual, Tensors sums,
                                Tensors workspace) {
  auto both = instance_norm_act_bwd_pair_args(grad_y, grad_skip, x, weight, bias, mean, rstd, act,
                                              negative_slope, pad, grad_x, grad_residual, sums,
                                              workspace, workspace_size);
  launch_backward("instance_norm_act_bwd_pair", x[0], both.data(), 2);
}

void instance_norm_act_finish_pair(Tensors x, OptionalTensors weight, OptionalTensors bias,
                                   OptionalTensors residual, Tensors moments, int64_t each,
                                   int64_t pitch, int64_t act, double negative_slope, int64_t pad,
                                   double eps, Tensors y, Tensors mean, Tensors rstd) {
  auto both = instance_norm_act_finish_pair_args(x, weight, bias, residual, moments, each, pitch,
                                                 act, negative_slope, pad, eps, y, mean, rstd);
  launch_forward("instance_norm_act_finish_pair", x[0], both.data(), 2);
}

void instance_norm_act_bwd_finish_pair(OptionalTensors grad_y, OptionalTensors grad_skip, Tensors x,
                                       OptionalTensors weight, OptionalTensors bias, Tensors mean,
                                       Tensors rstd, Tensors partial, int64_t act,
                                       double negative_slope, int64_t pad, Tensors grad_x,
                                       Tensors grad_residual, Tensors sums) {
  auto both = instance_norm_act_bwd_finish_pair_args(grad_y, grad_skip, x, weight, bias, mean, rstd,
                                                     partial, act, negative_slope, pad, grad_x,
                                                     grad_residual, sums);
  launch_backward("instance_norm_act_bwd_finish_pair", x[0], both.data(), 2);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("instance_norm_act_fwd", TORCH_BOX(&instance_norm_act_fwd));
  library.impl("instance_norm_act_apply", TORCH_BOX(&instance_norm_act_apply));
  library.impl("instance_norm_act_bwd", TORCH_BOX(&instance_norm_act_bwd));
  library.impl("instance_norm_act_finish", TORCH_BOX(&instance_norm_act_finish));
  library.impl("instance_norm_act_bwd_finish", TORCH_BOX(&instance_norm_act_bwd_finish));
  library.impl("instance_norm_act_finish_pair", TORCH_BOX(&instance_norm_act_finish_pair));
  library.impl("instance_norm_act_bwd_finish_pair", TORCH_BOX(&instance_norm_act_bwd_finish_pair));
  library.impl("instance_norm_act_fwd_pair", TORCH_BOX(&instance_norm_act_fwd_pair));
  library.impl("instance_norm_act_bwd_pair", TORCH_BOX(&instance_norm_act_bwd_pair));
}

}  // namespace cyclegan_fast
