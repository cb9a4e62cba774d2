// SPDX-License-Identifier: MIT
// The border between torch and CUDA for instance_norm_act: what a launch needs, and the launches.
#pragma once

#include <driver_types.h>

#include <cstdint>

#include "common/dtype.h"
#include "common/strided.h"

namespace cyclegan_fast {

// A is the accumulator: float, and double for double. Every pointer is to the device.
struct InstanceNormActShape {
  Dtype dtype;
  bool channels_last;
  int64_t n, c, h, w;
  int pad;  // 0 <= pad < min(h, w), or 0
  int act;  // 0 none, 1 relu, 2 leaky_relu
  double negative_slope;
  const void* x;       // [N, C, H, W] dtype, dense in the layout
  const void* weight;  // [C] A, or null for 1
  const void* bias;    // [C] A, or null for 0
  void* workspace;     // instance_norm_act_cuda_workspace() elements of A
};

struct InstanceNormActForward : InstanceNormActShape {
  double eps;
  Strided residual;  // [N, C, H, W] dtype, any strides
  void* y;           // [N, C, H + 2 pad, W + 2 pad] dtype, dense in the layout
  void* mean;        // [N, C] A
  void* rstd;        // [N, C] A
};

struct InstanceNormActBackward : InstanceNormActShape {
  const void* grad_y;   // [N, C, H + 2 pad, W + 2 pad] dtype, dense in the layout, or null
  Strided grad_skip;    // [N, C, H, W] dtype, any strides; not absent together with grad_y
  const void* mean;     // [N, C] A
  const void* rstd;     // [N, C] A
  void* grad_x;         // [N, C, H, W] dtype, dense in the layout
  void* grad_residual;  // the same, or null; what it holds is what the norm's gradient starts from
  void* sums;           // [2, N, C] A: sum dz, sum dz * xhat
};

// At least one element, and fewer than 2^31 pixels in a padded plane. Two launches at most; neither
// allocates nor synchronises. More blocks than a grid can have: cudaErrorInvalidConfiguration.
cudaError_t instance_norm_act_forward(const InstanceNormActForward& p, cudaStream_t stream);
cudaError_t instance_norm_act_backward(const InstanceNormActBackward& p, cudaStream_t stream);

// The two layouts, each in a file of its own.
cudaError_t instance_norm_act_forward_nhwc(const InstanceNormActForward& p, cudaStream_t stream);
cudaError_t instance_norm_act_backward_nhwc(const InstanceNormActBackward& p, cudaStream_t stream);
cudaError_t instance_norm_act_forward_nchw(const InstanceNormActForward& p, cudaStream_t stream);
cudaError_t instance_norm_act_backward_nchw(const InstanceNormActBackward& p, cudaStream_t stream);

}  // namespace cyclegan_fast
