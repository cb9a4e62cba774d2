// SPDX-License-Identifier: MIT
// Index arithmetic and activations, the same on the host and on the device.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define CYCLEGAN_FAST_HD __host__ __device__ __forceinline__
#else
#define CYCLEGAN_FAST_HD inline __attribute__((always_inline))
#endif

namespace cyclegan_fast {

// Internal linkage: each instruction set keeps its own copy.
namespace {

// The pixel that padded position i shows, counted without the pad: i in [-pad, n + pad), pad < n.
CYCLEGAN_FAST_HD int64_t reflected(int64_t i, int64_t n) {
  if (i < 0) return -i;
  return i < n ? i : 2 * (n - 1) - i;
}

// The adjoint: the positions in [0, n + 2 pad) that show pixel i, at most three of them, in the
// order own, left mirror image, right mirror image.
struct Mirrors {
  int64_t at[3];
  int count;
};

CYCLEGAN_FAST_HD Mirrors mirrors(int64_t i, int64_t n, int64_t pad) {
  Mirrors m = {{i + pad, 0, 0}, 1};
  if (i >= 1 && i <= pad) m.at[m.count++] = pad - i;
  if (i <= n - 2 && i >= n - 1 - pad) m.at[m.count++] = pad + 2 * (n - 1) - i;
  return m;
}

}  // namespace
}  // namespace cyclegan_fast
