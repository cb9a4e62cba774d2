// SPDX-License-Identifier: MIT
// Where the rows of a warp's results belong, and the columns' mirror images that are folded into
// them.
#pragma once

#include "ops/reflect_conv2d_hopper.cuh"

namespace cyclegan_fast {

constexpr int kStagedRows = 16;

// Of a row of a warp's results: its pixel there, or -1; and of the input's gradient the pixel that
// the norm has read, and whether that is the row itself and no mirror image. Folded, `own` is where
// the sums of a column's mirror image lie: those of a row that is one (its target is -1), or those
// to be added to the row; -1: nowhere.
struct alignas(16) HopperPlace {
  int target, h, w, own;
};

// Where the result at a position belongs.
template <bool kOfInput>
__device__ inline HopperPlace place_of(const HopperArguments& a, int position) {
  const int u = static_cast<int>(a.row.quotient(static_cast<uint32_t>(position)));
  const int v = position - u * a.p.width;
  if (!kOfInput) {
    const bool there = u < a.p.height - 2 && v < a.p.width - 2;
    return {there ? u * (a.p.width - 2) + v : -1, 0, 0, 0};
  }
  if (u >= a.p.height) return {-1, 0, 0, 0};
  const int pad = a.p.pad;
  const int h = reflected(u, pad, a.p.height - 2 * pad), w = reflected(v, pad, a.p.width - 2 * pad);
  return {position, h, w, h + pad == u && w + pad == v};
}

// Where the result at a position belongs, folded. `first` and `last`: of its tile.
__device__ inline HopperPlace folded_place_of(const HopperArguments& a, int position, int first,
                                              int last) {
  const auto row_of = [&](int at) {
    return static_cast<int>(a.row.quotient(static_cast<uint32_t>(at)));
  };
  if (position >= last) return {-1, 0, 0, -1};
  const int h = row_of(position), w = position - h * a.p.width - 1, width = a.p.width - 2;
  // Left and right of its rows.
  const int left = (h - row_of(first)) * 2;
  if (w < 0 || w >= width) return {-1, 0, 0, left + (w >= 0)};
  const int mirrored = w == 1 ? left : w == width - 2 ? left + 1 : -1;
  return {h * width + w, h, w, mirrored};
}

// Adds what the columns' mirror images have to the rows that they show. `sums` are a warp's 16
// rows.
template <int kColumns>
__device__ inline void fold_columns(float* mirrored, const HopperPlace* places, int lane,
                                    float (&sums)[kColumns / 2]) {
  static_assert(kHopperMostMirrored * kColumns <= kHopperWarps * (3 * kColumns + 1));
  const auto rows = [&](bool shown, const auto& pair) {
#pragma unroll
    for (int down = 0; down < 2; ++down) {
      const HopperPlace place = places[lane / 4 + down * 8];
      if (place.own < 0 || (place.target >= 0) != shown) continue;
      float* const at = mirrored + place.own * kColumns + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < kColumns / 8; ++j) pair(at + j * 8, &sums[j * 4 + down * 2]);
    }
  };
  rows(false, [](float* to, const float* from) { to[0] = from[0], to[1] = from[1]; });
  wait_for_threads<1, kMultipliers>();
  rows(true, [](const float* from, float* to) { to[0] += from[0], to[1] += from[1]; });
  wait_for_threads<1, kMultipliers>();
}

}  // namespace cyclegan_fast
