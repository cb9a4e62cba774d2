// SPDX-License-Identifier: MIT
// instance_norm_act: what the torch side hands to a kernel.
//
//   y = reflect_pad(act((x - mean) * rstd * weight + bias) + residual, pad)
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/math.h"

namespace cyclegan_fast {

// Images are contiguous, or all of them channels_last. acc: float, double for kFloat64.
struct InstanceNormActFwdParams {
  Dtype dtype;
  bool channels_last;
  int64_t n, c, h, w;  // of the unpadded image
  int64_t pad;
  double slope;  // of the activation below zero: 1 none, 0 relu, negative_slope leaky_relu
  double eps;
  const void* x;                // [N, C, H, W]
  const void* weight;           // acc [C], or NULL for 1
  const void* bias;             // acc [C], or NULL for 0
  const void* residual;         // [N, C, H, W] by its strides, or NULL
  int64_t residual_strides[4];  // of N, C, H, W
  void* y;                      // [N, C, H + 2 pad, W + 2 pad]
  void* mean;                   // acc [N, C]
  void* rstd;                   // acc [N, C]
  void* workspace;              // acc [instance_norm_act_workspace_<device>(shape)]
};

// g = adjoint of reflect_pad(grad_y) + grad_skip, at least one of the two; dz = g * act'(z).
struct InstanceNormActBwdParams {
  Dtype dtype;
  bool channels_last;
  int64_t n, c, h, w;
  int64_t pad;
  double slope;
  const void* grad_y;            // [N, C, H + 2 pad, W + 2 pad], or NULL
  const void* grad_skip;         // [N, C, H, W] by its strides, or NULL
  int64_t grad_skip_strides[4];  // of N, C, H, W
  const void* x;                 // [N, C, H, W]
  const void* weight;            // acc [C], or NULL for 1
  const void* bias;              // acc [C], or NULL for 0
  const void* mean;              // acc [N, C]
  const void* rstd;              // acc [N, C]
  void* grad_x;                  // [N, C, H, W]
  void* grad_residual;           // [N, C, H, W]: g; or NULL
  void* sums;                    // acc [2, N, C]: sum of dz, sum of dz * xhat over each plane
  void* workspace;               // acc [instance_norm_act_workspace_<device>(shape)]
};

struct WorkspaceShape {
  int64_t n, c, h, w;  // of the unpadded image
  bool channels_last;
};

// channels_last: an image is cut into bands of whole rows, which leave two partial results per
// channel each. Their number is a function of the image alone, never of the number of threads.
constexpr int64_t kMostBands = 64;

inline int64_t instance_norm_act_bands(const WorkspaceShape& shape) {
  return shape.h < kMostBands ? shape.h : kMostBands;
}

// Elements of the accumulator's type that forward and backward need.
inline int64_t instance_norm_act_workspace_cpu(const WorkspaceShape& shape) {
  if (!shape.channels_last) return 1;
  return 2 * shape.n * instance_norm_act_bands(shape) * shape.c + 1;
}

inline int64_t instance_norm_act_workspace_cuda(const WorkspaceShape& shape) {
  if (!shape.channels_last) return 1;
  return 2 * shape.n * instance_norm_act_bands(shape) * shape.c + 1;
}

}  // namespace cyclegan_fast
