// SPDX-License-Identifier: MIT
// augment on the CPU; compiled once per instruction set.
#include "ops/augment_cpu_kernels.h"

#include "common/unit.h"
#include "common/vec.h"

namespace cyclegan_fast {
namespace {

CYCLEGAN_FAST_INLINE int32_t clip(int32_t sum) {
  const int32_t level = sum >> kTapBits;
  return level < 0 ? 0 : level > 255 ? 255 : level;
}

CYCLEGAN_FAST_INLINE int64_t within(int64_t i, int64_t most) {
  return i > most ? (most < 0 ? 0 : most) : i < 0 ? 0 : i;
}

// The taps of one axis: a start and `count` weights for each scaled row or column.
struct Taps {
  int32_t count;
  const int32_t* first;

  explicit Taps(const int32_t* at) : count(at[0]), first(at + 1) {}
  const int32_t* of(int64_t i) const { return first + i * (count + 1); }
};

template <class T>
void row(const AugmentParams& p, int64_t task) {
  const int64_t i = task / p.h, y = task % p.h;
  const int64_t* pick = p.picks + i * 4;
  const int64_t* picture = p.table + within(pick[0], p.pictures - 1) * kAugmentColumns;
  const int64_t height = picture[kHeight], width = picture[kWidth];
  const int64_t top = within(pick[1], picture[kScaledHeight] - p.h);
  const int64_t left = within(pick[2], picture[kScaledWidth] - p.w);
  const Taps rows(p.taps + picture[kRows]), columns(p.taps + picture[kColumns]);
  const int32_t* down = rows.of(top + y);
  const uint8_t* levels = p.levels + picture[kFirst];
  const int64_t pixel = p.channels_last ? p.c : 1, channel = p.channels_last ? 1 : p.h * p.w;
  T* out = static_cast<T*>(p.out) + i * p.c * p.h * p.w + y * p.w * pixel;
  for (int64_t x = 0; x < p.w; ++x, out += pixel) {
    const int32_t* across = columns.of(left + (pick[3] != 0 ? p.w - 1 - x : x));
    for (int64_t c = 0; c < p.c; ++c) {
      int32_t sum = kTapHalf;
      for (int32_t t = 0; t < rows.count; ++t) {
        // Weights beyond the last row or column are zero, but what they weigh must exist.
        const uint8_t* line = levels + smaller(down[0] + t, height - 1) * width * p.c + c;
        int32_t part = kTapHalf;
        for (int32_t k = 0; k < columns.count; ++k)
          part += across[1 + k] * line[smaller(across[0] + k, width - 1) * p.c];
        sum += down[1 + t] * clip(part);
      }
      const float value = (static_cast<float>(clip(sum)) / 255.0f - 0.5f) / 0.5f;
      store_partial(out + c * channel, broadcast<Acc<T>>(value), 1);
    }
  }
}

void fwd(const AugmentParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    for (int64_t task = begin; task < end; ++task) row<decltype(type)>(p, task);
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(AugmentKernels, augment) = {.fwd = fwd};

}  // namespace cyclegan_fast
