// SPDX-License-Identifier: MIT
// Sums and moments over a warp or a block, in an order that depends on nothing but the shape.
#pragma once

#include "common/vector.cuh"

namespace cyclegan_fast {

constexpr unsigned kFullWarp = 0xffffffffu;

// Sum over the lanes that differ from this one in the bits `from` and above (from = 1: the warp).
template <typename A>
__device__ inline A warp_sum(A value, int from = 1) {
  for (int offset = from; offset < 32; offset <<= 1) {
    value += __shfl_xor_sync(kFullWarp, value, offset);
  }
  return value;
}

// Sum over threadIdx.x, blockDim.x a multiple of 32: the same bits in each thread. Every thread of
// the block calls it; rows of one warp each (blockDim.x = 32) have a sum each, and no barrier.
template <int kWarps, typename A>
__device__ inline A block_sum(A value, A (&shared)[kWarps]) {
  value = warp_sum(value);
  if (blockDim.x == 32) return value;
  __syncthreads();  // the array may still be read from an earlier sum
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  A total = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) total += shared[w];
  return total;
}

// How two sets of `mine` and `theirs` values merge: the means' difference d moves mean by
// d * share and adds d * d * spread to the squared deviations (Chan, Golub, LeVeque 1983).
template <typename A>
struct MergeWeights {
  A share, spread;
  __device__ MergeWeights(A mine, A theirs)
      : share(theirs > 0 ? theirs / (mine + theirs) : A(0)), spread(mine * share) {}
};

template <typename A>
__device__ inline void merge_moments(A& mean, A& m2, A their_mean, A their_m2,
                                     const MergeWeights<A>& weights) {
  const A d = their_mean - mean;
  mean += d * weights.share;
  m2 += their_m2 + d * d * weights.spread;
}

// Merges the first `counts` of kCount new values into running moments. Two passes over registers,
// then one merge: as exact as two passes over memory.
template <int kCount, typename A>
__device__ inline void merge_values(A& mean, A& m2, const A (&value)[kCount], int counts,
                                    A inverse_count, const MergeWeights<A>& weights) {
  A sum = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += i < counts ? value[i] : A(0);
  const A new_mean = sum * inverse_count;
  A new_m2 = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const A d = i < counts ? value[i] - new_mean : A(0);
    new_m2 += d * d;
  }
  merge_moments(mean, m2, new_mean, new_m2, weights);
}

__device__ inline float reciprocal_root(float value) { return 1.0f / sqrtf(value); }
__device__ inline double reciprocal_root(double value) { return 1.0 / sqrt(value); }

}  // namespace cyclegan_fast
