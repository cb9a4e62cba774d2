// SPDX-License-Identifier: MIT
// What the NCHW kernels of both directions share: which threads work on which plane.
//
// blockDim.x threads, a multiple of 32, work on one plane; small planes share a block, blockDim.y
// of them, with a warp each.
#pragma once

#include "common/index.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"
#include "ops/instance_norm_act_cuda.h"

namespace cyclegan_fast {

constexpr int kPlaneThreads = 512;  // at most, per block
constexpr int kPlaneWarps = kPlaneThreads / 32;

struct NchwGrid {
  Divider channels_divider, row, padded_row;
  int64_t planes;
  int channels, height, width, pad, pixels, padded_pixels;

  explicit NchwGrid(const InstanceNormActSizes& p)
      : channels_divider(static_cast<uint32_t>(p.c)),
        row(static_cast<uint32_t>(p.w)),
        padded_row(static_cast<uint32_t>(p.w + 2 * p.pad)),
        planes(p.n * p.c),
        channels(static_cast<int>(p.c)),
        height(static_cast<int>(p.h)),
        width(static_cast<int>(p.w)),
        pad(static_cast<int>(p.pad)),
        pixels(height * width),
        padded_pixels((height + 2 * pad) * (width + 2 * pad)) {}

  // A warp for up to 16 values per lane, else a block of which each thread has 8 or more.
  dim3 threads() const {
    if (pixels <= 512) return dim3(32, 8);
    return dim3(pixels <= 4096 ? 256 : kPlaneThreads, 1);
  }
  // Blocks of a launch; 0 if they are more than a grid can have.
  unsigned blocks() const {
    const int64_t count = (planes + threads().y - 1) / threads().y;
    return planes < (int64_t{1} << 31) ? static_cast<unsigned>(count) : 0;
  }
};

// The plane of this thread; past the last one in a block that is not full.
__device__ inline int64_t plane_of_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}

}  // namespace cyclegan_fast
