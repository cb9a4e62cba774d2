// SPDX-License-Identifier: MIT
// Loops of the losses: a chunk summed, a gradient written, partial sums added up. Anonymous
// namespace: see vec.h.
#pragma once

#include "common/vec.h"
#include "ops/loss.h"

namespace cyclegan_fast {
namespace {

template <class T>
struct SignVecOf {
  typedef int8_t type __attribute__((vector_size(kLanes<T>)));
};

// -1, 0 or 1; 0 for NaN.
template <class T>
CYCLEGAN_FAST_INLINE void store_sign(int8_t* to, Vec<T> value) {
  using SignVec = typename SignVecOf<T>::type;
  const SignVec sign = __builtin_convertvector((value < 0) - (value > 0), SignVec);
  __builtin_memcpy(to, &sign, sizeof sign);
}

template <class T>
CYCLEGAN_FAST_INLINE Vec<T> load_sign(const int8_t* from) {
  typename SignVecOf<T>::type sign;
  __builtin_memcpy(&sign, from, sizeof sign);
  return __builtin_convertvector(sign, Vec<T>);
}

// Sum of term(difference) over one chunk of `difference`, which has at(i) and partial_at(i, count);
// term must be zero at zero.
template <class T, class Difference, class Term>
CYCLEGAN_FAST_INLINE double sum_chunk(int64_t chunk, int64_t numel, const Difference& difference,
                                      const Term& term) {
  constexpr int64_t kStep = kLanes<T>;
  int64_t i = chunk * kLossChunk;
  const int64_t end = smaller(i + kLossChunk, numel);
  constexpr int kRun = 8;  // additions in a row: what rounds is the sum of few, not of the chunk
  Vec<T> total = {};
  while (i + kStep <= end) {
    Vec<T> sums[4] = {};  // four chains, since an addition takes four cycles
    int run = 0;
    for (; run < kRun && i + 4 * kStep <= end; ++run, i += 4 * kStep)
      for (int k = 0; k < 4; ++k) sums[k] += term(difference.at(i + k * kStep));
    for (; run < kRun && i + kStep <= end; ++run, i += kStep) sums[0] += term(difference.at(i));
    total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
  if (i < end) total += term(difference.partial_at(i, end - i));
  return sum_lanes<Acc<T>>(total);
}

// first[i] = gradient(difference) and second[i] = its negative over one chunk; either may be null.
template <class T, class Difference, class Gradient>
CYCLEGAN_FAST_INLINE void write_chunk(int64_t chunk, int64_t numel, const Difference& difference,
                                      const Gradient& gradient, T* first, T* second) {
  int64_t i = chunk * kLossChunk;
  const int64_t end = smaller(i + kLossChunk, numel);
  for (; i + kLanes<T> <= end; i += kLanes<T>) {
    const Vec<T> g = gradient(difference.at(i));
    if (first) store(first + i, g);
    if (second) store(second + i, -g);
  }
  if (i == end) return;
  const Vec<T> g = gradient(difference.partial_at(i, end - i));
  if (first) store_partial(first + i, g, end - i);
  if (second) store_partial(second + i, -g, end - i);
}

// loss = sum of the chunks' sums / numel, added up in float64.
template <class A>
CYCLEGAN_FAST_INLINE void finish_mean(const void* workspace, int64_t numel, void* loss) {
  const A* sums = static_cast<const A*>(workspace);
  double total = 0;
  for (int64_t i = 0; i < loss_workspace(numel); ++i) total += static_cast<double>(sums[i]);
  *static_cast<A*>(loss) = static_cast<A>(total / static_cast<double>(numel));
}

}  // namespace
}  // namespace cyclegan_fast
