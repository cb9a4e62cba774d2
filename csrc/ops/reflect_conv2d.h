// SPDX-License-Identifier: MIT
// reflect_conv2d: what the torch side hands to the kernels around the library's products, which the
// CPU has alone. Images are channels_last.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace cyclegan_fast {

// A thin layer as convolutions of single rows, as many as the kernel has, whose results lie side by
// side: channels [taps * C], tap by tap.
//   sum     image[n, h] = bias + the sum over t of rows[n, h + t, channels t C to (t + 1) C], or of
//           rows[n, h - t, ...] where it goes back
//   spread  rows[n, h, channels t C to (t + 1) C] = image[n, h - t]
// Beyond the first and the last row is zero.
struct ThinRowsParams {
  Dtype dtype;
  int64_t taps, c;
  int64_t w;                    // of both
  int64_t h, rows_h;            // of the image, of the rows
  bool back = false;            // of sum
  const void* rows = nullptr;   // of sum, [N, taps C, rows_h, w]
  void* image_out = nullptr;    // of sum, [N, C, h, w]
  const void* bias = nullptr;   // of sum, [C] of the dtype, or none
  const void* image = nullptr;  // of spread
  void* rows_out = nullptr;     // of spread
};

// F(3x3, 2x2): products that a window of 2 x 2 results, thus of 4 x 4 values of x, is made of.
constexpr int64_t kWinogradProducts = 16;

// Windows [first, first + count) of an image in float32, transformed into the factors of the
// products.
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
