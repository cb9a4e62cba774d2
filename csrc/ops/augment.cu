// SPDX-License-Identifier: MIT
// augment on CUDA: a thread makes one value of the batch, neighbours in memory by neighbours. What
// it reads begins at any byte, and the taps of neighbours overlap: the first-level cache serves
// them, and wider reads by fewer threads would only wait longer for the same lines.
#include "common/dispatch.cuh"
#include "common/launch.cuh"
#include "ops/augment_cuda.h"

namespace cyclegan_fast {
namespace {

constexpr int kThreads = 256;

__device__ inline int clip(int32_t sum) { return min(max(sum >> kTapBits, 0), 255); }

__device__ inline int64_t within(int64_t i, int64_t most) { return max(min(i, most), int64_t{0}); }

template <typename T>
__global__ void __launch_bounds__(kThreads) augment_kernel(const AugmentParams p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t values = p.c * p.h * p.w;
  if (at >= p.n * values) return;
  const int64_t i = at / values;
  // Of one picture 32 bits count the values, and divide ten times as fast.
  const auto value = static_cast<uint32_t>(at - i * values);
  const auto h = static_cast<uint32_t>(p.h), w = static_cast<uint32_t>(p.w);
  const auto channels = static_cast<uint32_t>(p.c);
  const uint32_t pixel = p.channels_last ? value / channels : value % (h * w);
  const uint32_t channel = p.channels_last ? value % channels : value / (h * w);

  const int64_t* pick = p.picks + i * 4;
  const int64_t* picture = p.table + within(pick[0], p.pictures - 1) * kAugmentColumns;
  const int64_t height = picture[kHeight], width = picture[kWidth];
  const int64_t y = within(pick[1], picture[kScaledHeight] - p.h) + pixel / w;
  const uint32_t column = pixel % w;
  const int64_t x =
      within(pick[2], picture[kScaledWidth] - p.w) + (pick[3] != 0 ? w - 1 - column : column);

  const int32_t* rows = p.taps + picture[kRows];
  const int32_t* columns = p.taps + picture[kColumns];
  const int32_t n_rows = *rows++, n_columns = *columns++;
  rows += y * (n_rows + 1);
  columns += x * (n_columns + 1);
  const int64_t first_row = *rows++, first_column = *columns++;
  const uint8_t* levels = p.levels + picture[kFirst] + channel;

  int32_t sum = kTapHalf;
  for (int32_t t = 0; t < n_rows; ++t) {
    // Weights beyond the last row or column are zero, but what they weigh must exist.
    const uint8_t* line = levels + min(first_row + t, height - 1) * width * p.c;
    int32_t across = kTapHalf;
    for (int32_t k = 0; k < n_columns; ++k)
      across += columns[k] * line[min(first_column + k, width - 1) * p.c];
    sum += rows[t] * clip(across);
  }
  const Accumulator<T> out[1] = {(static_cast<float>(clip(sum)) / 255.0f - 0.5f) / 0.5f};
  store(out, static_cast<T*>(p.out) + at);
}

}  // namespace

cudaError_t augment_fwd(const AugmentParams& p, cudaStream_t stream) {
  const int64_t values = p.n * p.c * p.h * p.w;
  if (values == 0) return cudaSuccess;
  const int64_t blocks = (values + kThreads - 1) / kThreads;
  if (blocks >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  return with_type(p.dtype, [&](auto tag) {
    return launch(augment_kernel<typename decltype(tag)::type>, static_cast<unsigned>(blocks),
                  kThreads, 0, stream, p);
  });
}

}  // namespace cyclegan_fast
