// SPDX-License-Identifier: MIT
// Index arithmetic of kernels, in 32 bits where math.h has 64: division by a number fixed per
// launch, reflection and its adjoint.
#pragma once

#include <cstdint>

namespace cyclegan_fast {

// n / divisor for 0 <= n < 2^31 by one multiplication and a shift (Granlund and Montgomery 1994,
// section 4): an integer division costs some twenty instructions on a GPU.
struct Divider {
  uint32_t divisor = 1, multiplier = 0, shift = 0;

  Divider() = default;
  explicit Divider(uint32_t d) : divisor(d) {
    while (shift < 31 && (uint32_t{1} << shift) < d) ++shift;
    const uint64_t power = uint64_t{1} << shift;
    multiplier = static_cast<uint32_t>((power - d) * (uint64_t{1} << 32) / d + 1);
  }

  __device__ uint32_t quotient(uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
};

// Source row (or column) of padded row i: the mirror at 0 and at size - 1. Needs pad < size.
__device__ inline int reflected(int i, int pad, int size) {
  const int k = abs(i - pad);
  return min(k, 2 * (size - 1) - k);
}

// The adjoint: the padded rows that are copies of row i. `first` always is one; `low` and `high`
// are -1 where row i has no mirror image beyond that edge.
struct Mirrors {
  int first, low, high;
  __device__ bool alone() const { return (low & high) < 0; }
};

__device__ inline Mirrors mirrors(int i, int pad, int size) {
  Mirrors m;
  m.first = i + pad;
  m.low = i >= 1 && i <= pad ? pad - i : -1;
  const int from_end = size - 1 - i;
  m.high = from_end >= 1 && from_end <= pad ? size - 1 + pad + from_end : -1;
  return m;
}

}  // namespace cyclegan_fast
