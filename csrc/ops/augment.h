// SPDX-License-Identifier: MIT
// augment: what the torch side hands to a kernel.
//
// For picture i of the batch, row y and column x of the crop, in whole numbers as Pillow has them:
//   row[t] = (sum over k of column_weight[k] * level[row_start + t, column_start + k] + half) >> 22
//   level  = (sum over t of row_weight[t] * clip(row[t]) + half) >> 22
//   out    = (clip(level) / 255 - 0.5) / 0.5, in float32
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace cyclegan_fast {

// Columns of the table: where a picture lies in `levels`, its size there, its size when scaled, and
// where the taps of its rows and of its columns begin in `taps`.
enum AugmentColumn { kFirst, kHeight, kWidth, kScaledHeight, kScaledWidth, kRows, kColumns };
constexpr int64_t kAugmentColumns = 7;

// Pillow's fixed point: 32 bits less 8 of a level and 2 of the sum.
constexpr int kTapBits = 22;
constexpr int32_t kTapHalf = 1 << (kTapBits - 1);

struct AugmentParams {
  Dtype dtype;  // of out
  bool channels_last;
  int64_t n, c, h, w;     // of out
  int64_t pictures;       // P
  const uint8_t* levels;  // pictures [height, width, C], one after the other
  const int64_t* table;   // [P, 7], see AugmentColumn
  const int32_t* taps;    // K, then for each scaled row or column its start and K weights
  const int64_t* picks;   // [N, 4]: picture, top, left, mirrored; moved to the nearest that exists
  void* out;              // [N, C, h, w]
};

}  // namespace cyclegan_fast
