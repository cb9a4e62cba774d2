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

void launch_forward(const char* op, const Tensor& x, InstanceNormActFwdParams params) {
  if (!has_work(op, x, params)) return;
  params.residual = used_strides(params.residual, params);
  const CudaDeviceGuard guard(x);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(x));
  check_launch(op, params.channels_last ? instance_norm_act_fwd_nhwc(params, stream)
                                        : instance_norm_act_fwd_nchw(params, stream));
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
  launch_forward("instance_norm_act_fwd", x,
                 instance_norm_act_fwd_args(x, weight, bias, residual, act, negative_slope, pad,
                                            eps, y, mean, rstd, workspace, workspace_size));
}

void instance_norm_act_apply(const Tensor& x,                 // [N, C, H, W]
                             const OptionalTensor& weight,    // acc [C]
                             const OptionalTensor& bias,      // acc [C]
                             const OptionalTensor& residual,  // [N, C, H, W], any strides
                             const Tensor& mean,              // acc [N, C]
                             const Tensor& rstd,              // acc [N, C]
                             int64_t act, double negative_slope, int64_t pad,
                             const Tensor& y) {  // [N, C, H + 2 pad, W + 2 pad]
  launch_forward("instance_norm_act_apply", x,
                 instance_norm_act_apply_args(x, weight, bias, residual, mean, rstd, act,
                                              negative_slope, pad, y));
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
  if (!has_work("instance_norm_act_bwd", x, params)) return;
  params.grad_skip = used_strides(params.grad_skip, params);
  const CudaDeviceGuard guard(x);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(x));
  check_launch("instance_norm_act_bwd", params.channels_last
                                            ? instance_norm_act_bwd_nhwc(params, stream)
                                            : instance_norm_act_bwd_nchw(params, stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("instance_norm_act_fwd", TORCH_BOX(&instance_norm_act_fwd));
  library.impl("instance_norm_act_apply", TORCH_BOX(&instance_norm_act_apply));
  library.impl("instance_norm_act_bwd", TORCH_BOX(&instance_norm_act_bwd));
}

}  // namespace cyclegan_fast
