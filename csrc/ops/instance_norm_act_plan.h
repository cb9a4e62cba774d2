// SPDX-License-Identifier: MIT
// How the CUDA kernels of instance_norm_act split an image, and the workspace that this takes.
// Plain arithmetic: the same on a machine without CUDA, and for every GPU, so that results are too.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace cyclegan_fast {

// A channels_last image is cut into chunks of pixels; each chunk leaves two partial results per
// channel in the workspace, which every writing block then combines for its own channels.
struct PixelSplit {
  int64_t chunk;   // pixels per chunk; the last one may hold fewer, none is empty
  int64_t chunks;  // chunks per image
};

inline PixelSplit split_pixels(int64_t n, int64_t c, int64_t pixels) {
  // About four blocks per multiprocessor of a large GPU, counted in groups of 32 channels ...
  constexpr int64_t kBlocks = 512;
  // ... but k chunks make every writing block read k partials: k^2 in all. k <= sqrt(pixels) / 4
  // keeps that traffic at an eighth of what reading and writing the image itself costs.
  constexpr int64_t kTraffic = 4;
  const int64_t groups = std::max<int64_t>(n * ((c + 31) / 32), 1);
  const int64_t root = static_cast<int64_t>(std::sqrt(static_cast<double>(pixels)));
  const int64_t wanted =
      std::max<int64_t>(std::min((kBlocks + groups / 2) / groups, root / kTraffic), 1);
  const int64_t chunk = std::max<int64_t>((pixels + wanted - 1) / wanted, 1);
  return {chunk, std::max<int64_t>((pixels + chunk - 1) / chunk, 1)};
}

// Whether a block takes all pixels of 16 channels of a channels_last image, statistics and writing
// in one launch: where they fit in the multiprocessor's cache (64 KB of 16-bit elements, as
// Triton's kernels take), so that memory is read once, and where that makes blocks enough that a
// second launch would cost more than the multiprocessors that stay idle.
constexpr int kResidentChannels = 16;
inline bool is_resident(int64_t n, int64_t c, int64_t pixels) {
  constexpr int64_t kElements = 32 << 10, kFewestBlocks = 32;
  return pixels * kResidentChannels <= kElements &&
         n * ((c + kResidentChannels - 1) / kResidentChannels) >= kFewestBlocks;
}

// Elements of the accumulator type that instance_norm_act_fwd and _bwd need on a CUDA device; none
// where one launch does it.
inline int64_t instance_norm_act_cuda_workspace(int64_t n, int64_t c, int64_t h, int64_t w,
                                                bool channels_last) {
  if (!channels_last || is_resident(n, c, h * w)) return 0;
  return n * split_pixels(n, c, h * w).chunks * 2 * c;
}

}  // namespace cyclegan_fast
