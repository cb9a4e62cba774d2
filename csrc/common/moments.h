// SPDX-License-Identifier: MIT
// Mean and variance in one pass over memory. Anonymous namespace: see vec.h.
#pragma once

#include "common/vec.h"

namespace cyclegan_fast {
namespace {

// Mean and sum of squared deviations of `count` values; two sets are merged by the formula of Chan,
// Golub and LeVeque 1979, which, unlike E[x^2] - E[x]^2, does not cancel at a large mean.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  CYCLEGAN_FAST_INLINE void merge(const Moments& other) {
    const double total = count + other.count, delta = other.mean - mean;
    squares += other.squares + delta * delta * (count * other.count / total);
    mean += delta * (other.count / total);
    count = total;
  }

  CYCLEGAN_FAST_INLINE double rstd(double eps) const {
    return 1 / __builtin_sqrt(squares / count + eps);
  }
};

// Moments of values given as sums around an estimate of their mean.
CYCLEGAN_FAST_INLINE Moments centred(double count, double estimate, double sum, double squares) {
  return {count, estimate + sum / count, squares - sum * sum / count};
}

// Moments of a stretch of memory, chunk by chunk. A chunk is summed around the mean of its first
// eighth: deviations from that can be at most eight times the chunk's own variance, so that at most
// three bits are lost to cancellation whatever the values are. Of so few values that an eighth may
// be an outlier, all are taken: none is lost.
template <class T>
CYCLEGAN_FAST_INLINE Moments moments(const T* x, int64_t count) {
  constexpr int64_t kStep = kLanes<T>, kChunk = 256 * kStep, kFew = 32 * kStep;
  Moments all;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t size = smaller(kChunk, count - begin);
    const T* from = x + begin;
    const int64_t first = size <= kFew ? size : size / 8 / kStep * kStep;
    Vec<T> total = {};
    int64_t i = 0;
    for (; i + kStep <= first; i += kStep) total += load(from + i);
    if (i < first) total += load_partial(from + i, first - i);
    const auto estimate =
        static_cast<Acc<T>>(sum_lanes<Acc<T>>(total) / static_cast<double>(first));
    const Vec<T> around = broadcast<Acc<T>>(estimate);
    Vec<T> sums[4] = {}, squares[4] = {};  // chains enough to hide four cycles of latency
    const auto add = [&](Vec<T> d, int k) {
      sums[k] += d;
      squares[k] += d * d;
    };
    i = 0;
    for (; i + 4 * kStep <= size; i += 4 * kStep)
      for (int k = 0; k < 4; ++k) add(load(from + i + k * kStep) - around, k);
    for (; i + kStep <= size; i += kStep) add(load(from + i) - around, 0);
    if (i < size) add(keep_first<Acc<T>>(load_partial(from + i, size - i) - around, size - i), 1);
    all.merge(centred(static_cast<double>(size), static_cast<double>(estimate),
                      sum_lanes<Acc<T>>((sums[0] + sums[1]) + (sums[2] + sums[3])),
                      sum_lanes<Acc<T>>((squares[0] + squares[1]) + (squares[2] + squares[3]))));
  }
  return all;
}

}  // namespace
}  // namespace cyclegan_fast
