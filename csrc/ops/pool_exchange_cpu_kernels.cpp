// SPDX-License-Identifier: MIT
// pool_exchange on the CPU; compiled once per instruction set.
#include "ops/pool_exchange_cpu_kernels.h"

#include "common/unit.h"
#include "common/vec.h"

namespace cyclegan_fast {
namespace {

// A picture of an overflowing step must not come back for ever; tanh ends at 1.
template <class T>
CYCLEGAN_FAST_INLINE Vec<T> finite(Vec<T> x) {
  const Vec<T> one = Vec<T>{} + 1, limit = x - x;  // 0 where finite, else nan
  const Vec<T> ended = x > 0 ? one : x < 0 ? -one : Vec<T>{};
  return limit == 0 ? x : ended;
}

template <class T>
void exchange(const PoolExchangeParams& p, int64_t chunk) {
  const int64_t begin = chunk * kPoolChunk;
  const int64_t count = smaller(kPoolChunk, p.elements - begin);
  const T* pictures = static_cast<const T*>(p.pictures) + begin;
  T* rows = static_cast<T*>(p.rows) + begin;
  T* shown = static_cast<T*>(p.shown) + begin;
  for (int64_t i = 0; i < p.n; ++i) {
    int64_t take = smaller(p.take[i], p.size + p.n - 1);
    take = take < 0 ? 0 : take;
    const T* from =
        take < p.size ? rows + take * p.elements : pictures + (take - p.size) * p.elements;
    __builtin_memcpy(shown + i * p.elements, from, static_cast<size_t>(count) * sizeof(T));
  }
  for (int64_t i = 0; i < p.n; ++i) {
    if (p.put[i] < 0 || p.put[i] >= p.size) continue;
    const T* from = pictures + i * p.elements;
    T* to = rows + p.put[i] * p.elements;
    int64_t k = 0;
    for (; k + kLanes<T> <= count; k += kLanes<T>) store(to + k, finite<T>(load(from + k)));
    if (k < count) store_partial(to + k, finite<T>(load_partial(from + k, count - k)), count - k);
  }
}

void fwd(const PoolExchangeParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    for (int64_t task = begin; task < end; ++task) exchange<decltype(type)>(p, task);
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(PoolExchangeKernels, pool_exchange) = {.fwd = fwd};

}  // namespace cyclegan_fast
