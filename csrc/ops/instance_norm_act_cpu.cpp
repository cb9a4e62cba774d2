// SPDX-License-Identifier: MIT
// instance_norm_act on the CPU: registers the raw ops and shares the work out among the threads.
#include "ops/instance_norm_act_args.h"
#include "ops/instance_norm_act_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

int64_t workspace_size(const InstanceNormActSizes& sizes) {
  return instance_norm_act_cpu_workspace(sizes.n, sizes.c, sizes.h, sizes.channels_last);
}

// `work`: elements that all tasks together read.
template <class Params>
void run(const Params& p, InstanceNormActKernel<Params> kernel, int64_t tasks, int64_t work) {
  if (tasks == 0) return;
  parallel_for(tasks, work / tasks, [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
}

// The three stages of a channels_last image.
template <class Params>
void run_bands(const Params& p, InstanceNormActKernel<Params> partial,
               InstanceNormActKernel<Params> merge, InstanceNormActKernel<Params> write) {
  const int64_t elements = p.n * p.c * p.h * p.w, bands = p.n * instance_norm_act_bands(p.h);
  if (elements == 0) return;
  run(p, partial, bands, elements);
  run(p, merge, p.n * ((p.c + kChannelGroup - 1) / kChannelGroup), 4 * bands * p.c);
  run(p, write, p.n * p.h, elements);
}

void forward(const InstanceNormActFwdParams& p) {
  if (!p.channels_last)
    return run(p, instance_norm_act_nchw_kernels().fwd, p.n * p.c, p.n * p.c * p.h * p.w);
  const auto& kernels = instance_norm_act_nhwc_fwd_kernels();
  run_bands(p, kernels.statistics, kernels.merge, kernels.write);
}

void backward(const InstanceNormActBwdParams& p) {
  if (!p.channels_last)
    return run(p, instance_norm_act_nchw_kernels().bwd, p.n * p.c, p.n * p.c * p.h * p.w);
  const auto& kernels = instance_norm_act_nhwc_bwd_kernels();
  run_bands(p, kernels.sums, kernels.merge, kernels.write);
}

void instance_norm_act_fwd(const Tensor& x,                 // [N, C, H, W]
                           const OptionalTensor& weight,    // acc [C]
                           const OptionalTensor& bias,      // acc [C]
                           const OptionalTensor& residual,  // [N, C, H, W], any strides
                           int64_t act, double negative_slope, int64_t pad, double eps,
                           const Tensor& y,            // [N, C, H + 2 pad, W + 2 pad]
                           const Tensor& mean,         // acc [N, C]
                           const Tensor& rstd,         // acc [N, C]
                           const Tensor& workspace) {  // acc
  forward(instance_norm_act_fwd_args(x, weight, bias, residual, act, negative_slope, pad, eps, y,
                                     mean, rstd, workspace, workspace_size));
}

void instance_norm_act_apply(const Tensor& x,                 // [N, C, H, W]
                             const OptionalTensor& weight,    // acc [C]
                             const OptionalTensor& bias,      // acc [C]
                             const OptionalTensor& residual,  // [N, C, H, W], any strides
                             const Tensor& mean,              // acc [N, C]
                             const Tensor& rstd,              // acc [N, C]
                             int64_t act, double negative_slope, int64_t pad,
                             const Tensor& y) {  // [N, C, H + 2 pad, W + 2 pad]
  const auto p = instance_norm_act_apply_args(x, weight, bias, residual, mean, rstd, act,
                                              negative_slope, pad, y);
  const int64_t elements = p.n * p.c * p.h * p.w;
  if (!p.channels_last) return run(p, instance_norm_act_nchw_kernels().fwd, p.n * p.c, elements);
  if (elements) run(p, instance_norm_act_nhwc_fwd_kernels().write, p.n * p.h, elements);
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
                           const Tensor& workspace) {            // acc
  backward(instance_norm_act_bwd_args(grad_y, grad_skip, x, weight, bias, mean, rstd, act,
                                      negative_slope, pad, grad_x, grad_residual, sums, workspace,
                                      workspace_size));
}

// Two calls whose x have the same sizes, dtype and layout.
void instance_norm_act_fwd_pair(Tensors x, OptionalTensors weight, OptionalTensors bias,
                                OptionalTensors residual, int64_t act, double negative_slope,
                                int64_t pad, double eps, Tensors y, Tensors mean, Tensors rstd,
                                Tensors workspace) {
  for (const auto& p :
       instance_norm_act_fwd_pair_args(x, weight, bias, residual, act, negative_slope, pad, eps, y,
                                       mean, rstd, workspace, workspace_size))
    forward(p);
}

void instance_norm_act_bwd_pair(OptionalTensors grad_y, OptionalTensors grad_skip, Tensors x,
                                OptionalTensors weight, OptionalTensors bias, Tensors mean,
                                Tensors rstd, int64_t act, double negative_slope, int64_t pad,
                                Tensors grad_x, Tensors grad_residual, Tensors sums,
                                Tensors workspace) {
  for (const auto& p : instance_norm_act_bwd_pair_args(
           grad_y, grad_skip, x, weight, bias, mean, rstd, act, negative_slope, pad, grad_x,
           grad_residual, sums, workspace, workspace_size))
    backward(p);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("instance_norm_act_fwd", TORCH_BOX(&instance_norm_act_fwd));
  library.impl("instance_norm_act_apply", TORCH_BOX(&instance_norm_act_apply));
  library.impl("instance_norm_act_bwd", TORCH_BOX(&instance_norm_act_bwd));
  library.impl("instance_norm_act_fwd_pair", TORCH_BOX(&instance_norm_act_fwd_pair));
  library.impl("instance_norm_act_bwd_pair", TORCH_BOX(&instance_norm_act_bwd_pair));
}

}  // namespace cyclegan_fast
