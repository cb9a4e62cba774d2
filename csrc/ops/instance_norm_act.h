// SPDX-License-Identifier: MIT
// instance_norm_act: what the torch side hands on, checked.
//
//   y = reflect_pad(act((x - mean) * rstd * weight + bias) + residual, pad)
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/strided.h"

namespace cyclegan_fast {

// Images are contiguous, or all of them channels_last. acc: float, double for kFloat64.
struct InstanceNormActSizes {
  Dtype dtype;
  bool channels_last;
  int64_t n, c, h, w;  // of the unpadded image
  int64_t pad;         // 0 <= pad < min(h, w), or 0
  int act;             // 0 none, 1 relu, 2 leaky_relu
  double negative_slope;
};

// Partial results of chunks of each image's pixels, from the convolution beside the norm.
struct Partials {
  const void* data;  // acc [N, chunks, rows, C]; NULL where the norm's own first launch leaves them
  int64_t chunks;
  int64_t each, pitch;  // positions in a chunk, and in a row; those beyond the width are no pixels
};

struct InstanceNormActFwdParams : InstanceNormActSizes {
  bool given;  // mean and rstd are there already, taken elsewhere: nobody writes to them
  double eps;
  const void* x;       // [N, C, H, W]
  const void* weight;  // acc [C], or NULL for 1
  const void* bias;    // acc [C], or NULL for 0
  Strided residual;    // [N, C, H, W], any strides; or absent
  void* y;             // [N, C, H + 2 pad, W + 2 pad]
  void* mean;          // acc [N, C]
  void* rstd;          // acc [N, C]
  void* workspace;     // acc, see instance_norm_act_workspace; NULL where nothing is taken
  Partials moments;  // 3 rows: a pixel, the mean of the chunk's less it, sum of squared deviations
};

// g = adjoint of reflect_pad(grad_y) + grad_skip, at least one of the two; dz = g * act'(z).
struct InstanceNormActBwdParams : InstanceNormActSizes {
  const void* grad_y;   // [N, C, H + 2 pad, W + 2 pad], or NULL
  Strided grad_skip;    // [N, C, H, W], any strides; or absent
  const void* x;        // [N, C, H, W]
  const void* weight;   // acc [C], or NULL for 1
  const void* bias;     // acc [C], or NULL for 0
  const void* mean;     // acc [N, C]
  const void* rstd;     // acc [N, C]
  void* grad_x;         // [N, C, H, W]
  void* grad_residual;  // [N, C, H, W]: g; or NULL
  void* sums;           // acc [2, N, C]: sum of dz, sum of dz * xhat over each plane
  void* workspace;      // acc, see instance_norm_act_workspace; NULL where sums are given
  Partials partial;     // 2 rows: sums of dz and of dz * xhat; each and pitch are not used
};

// The activation's slope below zero.
static inline double activation_slope(const InstanceNormActSizes& sizes) {
  return sizes.act == 0 ? 1 : sizes.act == 1 ? 0 : sizes.negative_slope;
}

// channels_last on the CPU: an image is cut into bands of whole rows, which leave two partial
// results per channel each. Their number is a function of the image alone, never of the number of
// threads, so that the results are too.
constexpr int64_t kMostBands = 64;

static inline int64_t instance_norm_act_bands(int64_t h) { return h < kMostBands ? h : kMostBands; }

// Elements of the accumulator's type that forward and backward need on the CPU.
static inline int64_t instance_norm_act_cpu_workspace(int64_t n, int64_t c, int64_t h,
                                                      bool channels_last) {
  return channels_last ? 2 * n * instance_norm_act_bands(h) * c : 0;
}

}  // namespace cyclegan_fast
