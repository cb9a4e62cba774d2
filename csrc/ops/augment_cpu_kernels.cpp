// SPDX-License-Identifier: MIT
// augment on the CPU; compiled once per instruction set.
#include "ops/augment_cpu_kernels.h"

#include "common/unit.h"
#include "common/vec.h"

namespace cyclegan_fast {
namespace {

constexpr int64_t kTile = 64;  // columns at a time: sums of a band stay in the first-level cache

CYCLEGAN_FAST_INLINE int32_t clip(int32_t sum) {
  const int32_t level = sum >> kTapBits;
  return level < 0 ? 0 : level > 255 ? 255 : level;
}

CYCLEGAN_FAST_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// What one axis of a crop reads: a start and `count` weights for each of its rows or columns.
struct Axis {
  int64_t count, size;  // size: of the picture, along the axis
  const int32_t* taps;  // of the crop's first row or column

  Axis(const int32_t* at, int64_t size, int64_t first)
      : count(at[0]), size(size), taps(at + 1 + first * (at[0] + 1)) {}

  const int32_t* of(int64_t i) const { return taps + i * (count + 1); }
  int64_t start(int64_t i) const { return of(i)[0]; }
  // Weights beyond the picture are zero.
  int64_t end(int64_t i) const { return smaller(start(i) + count, size); }
};

// One picture of the batch.
struct Crop {
  const uint8_t* levels;
  bool mirrored;
  Axis rows, columns;

  static int64_t within(int64_t i, int64_t most) { return larger(smaller(i, most), 0); }

  static Crop of(const AugmentParams& p, int64_t i) {
    const int64_t* pick = p.picks + i * 4;
    const int64_t* picture = p.table + within(pick[0], p.pictures - 1) * kAugmentColumns;
    const int64_t top = within(pick[1], picture[kScaledHeight] - p.h);
    const int64_t left = within(pick[2], picture[kScaledWidth] - p.w);
    return {.levels = p.levels + picture[kFirst],
            .mirrored = pick[3] != 0,
            .rows = Axis(p.taps + picture[kRows], picture[kHeight], top),
            .columns = Axis(p.taps + picture[kColumns], picture[kWidth], left)};
  }
};

// A part of a picture of the batch: rows and columns of the crop, and channels from `channel` on.
struct Part {
  int64_t i, y, height, x, width, channel;
};

// A row of the picture, kChannels of it, as the part's columns see it.
template <int kChannels>
CYCLEGAN_FAST_INLINE void filter_row(const AugmentParams& p, const Crop& crop, const Part& part,
                                     int64_t row, int32_t* line) {
  const uint8_t* levels = crop.levels + row * crop.columns.size * p.c + part.channel;
  for (int64_t x = 0; x < part.width; ++x) {
    const int64_t column = crop.mirrored ? p.w - 1 - (part.x + x) : part.x + x;
    const int32_t* weights = crop.columns.of(column) + 1;
    const int64_t start = crop.columns.start(column), taps = crop.columns.end(column) - start;
    int32_t sum[kChannels];
    for (int c = 0; c < kChannels; ++c) sum[c] = kTapHalf;
    for (int64_t k = 0; k < taps; ++k)
      for (int c = 0; c < kChannels; ++c) sum[c] += weights[k] * levels[(start + k) * p.c + c];
    for (int c = 0; c < kChannels; ++c) line[x * kChannels + c] = clip(sum[c]);
  }
}

// Values that lie side by side in memory.
template <class T>
CYCLEGAN_FAST_INLINE void store_row(T* out, const Acc<T>* values, int64_t count) {
  int64_t k = 0;
  for (; k + kLanes<T> <= count; k += kLanes<T>) store(out + k, load(values + k));
  if (k < count) store_partial(out + k, load_partial(values + k, count - k), count - k);
}

template <class T, int kChannels>
CYCLEGAN_FAST_INLINE void write_row(const AugmentParams& p, const Part& part, int64_t y,
                                    const int32_t* sums) {
  Acc<T> values[kTile * kChannels];
  const bool side_by_side = p.channels_last && kChannels == p.c;
  for (int64_t x = 0; x < part.width; ++x) {
    for (int c = 0; c < kChannels; ++c) {
      const int32_t level = clip(sums[x * kChannels + c]);
      const float value = (static_cast<float>(level) / 255.0f - 0.5f) / 0.5f;
      values[side_by_side ? x * kChannels + c : c * kTile + x] = value;
    }
  }
  T* out = static_cast<T*>(p.out) + part.i * p.c * p.h * p.w;
  const int64_t pixel = (part.y + y) * p.w + part.x;
  if (side_by_side) return store_row(out + pixel * p.c, values, part.width * kChannels);
  for (int c = 0; c < kChannels; ++c) {
    const int64_t channel = part.channel + c;
    const Acc<T>* of_channel = values + c * kTile;
    if (!p.channels_last) {
      store_row(out + channel * p.h * p.w + pixel, of_channel, part.width);
      continue;
    }
    for (int64_t x = 0; x < part.width; ++x)
      store_partial(out + (pixel + x) * p.c + channel, broadcast(of_channel[x]), 1);
  }
}

template <class T, int kChannels>
void filter(const AugmentParams& p, const Crop& crop, const Part& part) {
  const int64_t values = part.width * kChannels;
  int32_t sums[kAugmentBand][kTile * kChannels];
  int64_t first = crop.rows.size, last = 0;
  for (int64_t y = 0; y < part.height; ++y) {
    for (int64_t v = 0; v < values; ++v) sums[y][v] = kTapHalf;
    first = smaller(first, crop.rows.start(part.y + y));
    last = larger(last, crop.rows.end(part.y + y));
  }
  for (int64_t row = first; row < last; ++row) {
    int32_t line[kTile * kChannels];
    filter_row<kChannels>(p, crop, part, row, line);
    for (int64_t y = 0; y < part.height; ++y) {
      const int64_t tap = row - crop.rows.start(part.y + y);
      if (tap < 0 || tap >= crop.rows.count) continue;
      const int32_t weight = crop.rows.of(part.y + y)[1 + tap];
      for (int64_t v = 0; v < values; ++v) sums[y][v] += weight * line[v];
    }
  }
  for (int64_t y = 0; y < part.height; ++y) write_row<T, kChannels>(p, part, y, sums[y]);
}

template <class T>
void band(const AugmentParams& p, int64_t task) {
  const int64_t bands = augment_bands(p);
  Part part{.i = task / bands, .y = task % bands * kAugmentBand};
  part.height = smaller(kAugmentBand, p.h - part.y);
  const Crop crop = Crop::of(p, part.i);
  for (part.x = 0; part.x < p.w; part.x += kTile) {
    part.width = smaller(kTile, p.w - part.x);
    if (p.c == 3) {
      filter<T, 3>(p, crop, part);
      continue;
    }
    for (part.channel = 0; part.channel < p.c; ++part.channel) filter<T, 1>(p, crop, part);
    part.channel = 0;
  }
}

void fwd(const AugmentParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    for (int64_t task = begin; task < end; ++task) band<decltype(type)>(p, task);
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(AugmentKernels, augment) = {.fwd = fwd};

}  // namespace cyclegan_fast
