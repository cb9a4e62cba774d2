// SPDX-License-Identifier: MIT
// The gradients of reflect_conv2d's weight and bias on Hopper: what the torch side hands to the
// kernels. 3x3, stride 1, of images that are padded already, all in channels_last; see
// docs/derivations/reflect_conv2d.md, "hopper".
//
//   weight[o, r, s, c] = sum over n, i, j of g[n, i, j, o] x[n, i + r, j + s, c]
//   bias[o] = sum over n, i, j of g[n, i, j, o];  g = grad_y, behind a tanh grad_y (1 - y^2)
#pragma once

#include "ops/reflect_conv2d_hopper.h"

namespace cyclegan_fast {

constexpr int kWeightPixels = 64;    // of a result's row, summed over in one step
constexpr int kWeightFilters = 128;  // of a block, 64 for each warpgroup that multiplies
constexpr int kWeightSlots = 6;      // steps that are on their way, or being multiplied

struct HopperWeightCall {
  const void* grad_y = nullptr;  // [groups N, height - 2, width - 2, C_out]
  const void* y = nullptr;       // like grad_y: the tanh whose derivative that is to have; or NULL
  const void* x = nullptr;       // [groups N, height, width, C]
  void* weight = nullptr;        // [groups, C_out, 3, 3, C], or NULL
  void* bias = nullptr;          // [groups, C_out], or NULL
  float* workspace = nullptr;    // [splits, elements], if there are several splits
};

struct HopperWeightParams {
  Dtype dtype;                     // float16 or bfloat16
  Dtype weight_dtype, bias_dtype;  // the same, or float32
  int calls;                       // of the same sizes, one or two
  int groups;                      // layers, whose images lie one behind another
  int64_t n;                       // images of one layer
  int height, width;               // of the padded image
  int channels, filters;           // C and C_out, multiples of 64
  int columns;                     // 64 or 128 channels of a block
  int each;                        // steps of a split
  HopperWeightCall call[kHopperMostCalls];

  // Steps to a row of the result, and to a layer's sum.
  int across() const { return (width - 2 + kWeightPixels - 1) / kWeightPixels; }
  int64_t steps() const { return n * (height - 2) * across(); }
  int64_t splits() const { return (steps() + each - 1) / each; }

  // Of all layers' gradients; in a split's sums those of the biases lie behind those of the
  // weights.
  int64_t weight_elements() const {
    return call[0].weight ? int64_t{groups} * filters * kTaps * channels : 0;
  }
  int64_t bias_elements() const { return call[0].bias ? int64_t{groups} * filters : 0; }
  int64_t elements() const { return weight_elements() + bias_elements(); }
};

// A slot of shared memory: pixels of grad_y, and of x those and two more. A pixel's channels lie in
// planes of eight, 16 bytes, so that a tap is the same planes from a later pixel on. Planes have an
// odd number of pixels: the eight of a pixel lie in different banks.
constexpr int kGradPlane = (kWeightPixels + 1) * 16;
constexpr int kImagePlane = (kWeightPixels + 3) * 16;
constexpr int kWeightOnes = 16 * 8 * 2;  // by which bias is a product

template <int kColumns>
constexpr int kWeightSlot = kWeightFilters / 8 * kGradPlane + kColumns / 8 * kImagePlane;
template <int kColumns>  // slots, ones, and two barriers to a slot
constexpr int kWeightShared = kWeightSlots * (kWeightSlot<kColumns> + 2 * 8) + kWeightOnes;
static_assert(kWeightShared<128> <= kHopperShared);

}  // namespace cyclegan_fast
