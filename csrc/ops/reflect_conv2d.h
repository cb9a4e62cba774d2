// SPDX-License-Identifier: MIT
// reflect_conv2d: what the torch side hands to the kernels of Winograd's weight gradient, which the
// CPU has alone. Everything is float32; images are channels_last.
#pragma once

#include <cstdint>

namespace cyclegan_fast {

// F(3x3, 2x2): products that a window of 2 x 2 results, thus of 4 x 4 values of x, is made of.
constexpr int64_t kWinogradProducts = 16;

// Windows [first, first + count) of an image, transformed into the factors of the products.
struct WinogradFactorsParams {
  bool of_result;  // windows of grad_y (2 x 2), not of x (4 x 4); both two pixels apart
  int64_t c, h, w;
  int64_t rows, columns;  // windows of an image
  int64_t first, count;   // windows of the batch
  const float* image;     // [N, C, H, W], channels_last
  float* factors;         // [count, 16, C]
};

struct WinogradGatherParams {
  int64_t out_channels, channels;
  const float* products;  // [16, C_out, C]
  float* grad_weight;     // [C_out, C, 3, 3], channels_last
};

}  // namespace cyclegan_fast
