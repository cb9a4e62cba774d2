// SPDX-License-Identifier: MIT
// What the channels_last kernels of both directions share: how blocks cover an image.
//
// A block takes a slice of at most 32 channels of a chunk of pixels of one image: `lanes` threads
// side by side, each with kWidth neighbouring channels, times `rows` pixels. The first launch
// leaves two partial results per (image, chunk, channel) in the workspace; in the second, each
// block combines the partial results of its slice and writes its chunk. Narrow slices keep the
// former cheap. A resident slice is one chunk, and one launch does both. See
// instance_norm_act_plan.h.
#pragma once

#include "common/index.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"
#include "ops/instance_norm_act_cuda.h"
#include "ops/instance_norm_act_plan.h"

namespace cyclegan_fast {

constexpr int kMaxSlice = 32;  // channels of a block: one warp combines one partial result of each

struct NhwcGrid {
  Divider slices, chunks;
  int slice_count, chunk_count;
  int lane_bits;  // lanes = 1 << lane_bits
  int channels, height, width, pad;
  int pixels, chunk;                // per image, per chunk
  int padded_pixels, padded_chunk;  // of y and grad_y
  Divider row, padded_row;          // pixels per row

  NhwcGrid(const InstanceNormActSizes& p, int vector_width, bool resident) {
    const PixelSplit split =
        resident ? PixelSplit{p.h * p.w, 1} : split_pixels(p.n, p.c, p.h * p.w);
    const int64_t threads = (p.c + vector_width - 1) / vector_width;
    const auto slice_number = [&] { return (threads + (1 << lane_bits) - 1) >> lane_bits; };
    if (resident) {
      lane_bits = 0;
      while (vector_width << lane_bits < kResidentChannels) ++lane_bits;
    } else {
      lane_bits = vector_width == 1 ? 5 : 2;  // 64 bytes side by side: two sectors
      // Half of that where blocks would be fewer than multiprocessors, or channels few.
      while (lane_bits > 0 && threads <= (int64_t{1} << (lane_bits - 1))) --lane_bits;
      if (vector_width > 1 && lane_bits == 2 && p.n * split.chunks * slice_number() < 200)
        --lane_bits;
    }
    slice_count = static_cast<int>(slice_number());
    chunk_count = static_cast<int>(split.chunks);
    slices = Divider(slice_count);
    chunks = Divider(chunk_count);
    channels = static_cast<int>(p.c);
    height = static_cast<int>(p.h);
    width = static_cast<int>(p.w);
    pad = static_cast<int>(p.pad);
    pixels = height * width;
    chunk = static_cast<int>(split.chunk);
    padded_pixels = (height + 2 * pad) * (width + 2 * pad);
    padded_chunk = (padded_pixels - 1) / chunk_count + 1;
    row = Divider(width);
    padded_row = Divider(width + 2 * pad);
  }

  // Blocks of a launch; 0 if they are more than a grid can have.
  unsigned blocks(int64_t n) const {
    const int64_t count = n * chunk_count * slice_count;
    return count < (int64_t{1} << 31) ? static_cast<unsigned>(count) : 0;
  }
};

// The arguments of a launch: of one call, or of two whose sizes are the same, each with a row of
// blocks (blockIdx.y) of its own.
constexpr int kMostCalls = 2;
template <class Arguments>
struct Calls {
  Arguments of[kMostCalls];
};

// This thread's place.
template <int kWidth>
struct NhwcPlace {
  int n, chunk, first_channel, channel, lane, row, rows;
  bool active;  // false beyond the last channel

  __device__ NhwcPlace(const NhwcGrid& grid, unsigned block) {
    const unsigned rest = grid.slices.quotient(block);
    const int slice = static_cast<int>(block - rest * grid.slice_count);
    n = static_cast<int>(grid.chunks.quotient(rest));
    chunk = static_cast<int>(rest - n * static_cast<unsigned>(grid.chunk_count));
    lane = threadIdx.x & ((1 << grid.lane_bits) - 1);
    row = threadIdx.x >> grid.lane_bits;
    rows = blockDim.x >> grid.lane_bits;
    first_channel = (slice << grid.lane_bits) * kWidth;
    channel = first_channel + lane * kWidth;
    active = channel < grid.channels;
  }
  // Channels of this block's slice.
  __device__ int slice_width(const NhwcGrid& grid) const {
    return min(kWidth << grid.lane_bits, grid.channels - first_channel);
  }
  // Index of the first of two partial results; the second lies grid.channels further.
  __device__ int64_t partial(const NhwcGrid& grid, int of_chunk, int of_channel) const {
    return (static_cast<int64_t>(n) * grid.chunk_count + of_chunk) * 2 * grid.channels + of_channel;
  }
  __device__ int64_t statistic(const NhwcGrid& grid, int of_channel) const {
    return static_cast<int64_t>(n) * grid.channels + of_channel;
  }
};

// [channel of the slice]: the kWidth values of this thread's channels.
template <int kWidth, typename A>
__device__ inline void from_slice(const A (&slice)[kMaxSlice], int lane, A (&to)[kWidth]) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) to[i] = slice[lane * kWidth + i];
}

}  // namespace cyclegan_fast
