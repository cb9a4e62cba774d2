// SPDX-License-Identifier: MIT
// pool_exchange on CUDA: a thread takes the same few values of every picture, reads all that is to
// be shown, then writes what is to be kept. So a row may be taken and replaced in one launch.
#include "common/dispatch.cuh"
#include "common/launch.cuh"
#include "ops/pool_exchange_cuda.h"

namespace cyclegan_fast {
namespace {

constexpr int kThreads = 256;

// A picture of an overflowing step must not come back for ever; tanh ends at 1.
template <typename A>
__device__ inline A finite(A x) {
  return x - x == 0 ? x : static_cast<A>((x > 0) - (x < 0));
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) pool_exchange_kernel(const PoolExchangeParams p) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (at >= p.elements) return;
  const T* pictures = static_cast<const T*>(p.pictures) + at;
  T* rows = static_cast<T*>(p.rows) + at;
  T* shown = static_cast<T*>(p.shown) + at;
  for (int64_t i = 0; i < p.n; ++i) {
    int64_t take = min(p.take[i], p.size + p.n - 1);
    take = max(take, int64_t{0});
    const T* from =
        take < p.size ? rows + take * p.elements : pictures + (take - p.size) * p.elements;
    store_vector(load_vector<T, kWidth>(from), shown + i * p.elements);
  }
  for (int64_t i = 0; i < p.n; ++i) {
    if (p.put[i] < 0 || p.put[i] >= p.size) continue;
    Accumulator<T> value[kWidth];
    unpack(load_vector<T, kWidth>(pictures + i * p.elements), value);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) value[k] = finite(value[k]);
    store(value, rows + p.put[i] * p.elements);
  }
}

template <typename T, int kWidth>
cudaError_t run(const PoolExchangeParams& p, cudaStream_t stream) {
  const int64_t per_block = int64_t{kThreads} * kWidth;
  const int64_t blocks = (p.elements + per_block - 1) / per_block;
  if (blocks >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  return launch(pool_exchange_kernel<T, kWidth>, static_cast<unsigned>(blocks), kThreads, 0, stream,
                p);
}

}  // namespace

cudaError_t pool_exchange_fwd(const PoolExchangeParams& p, cudaStream_t stream) {
  if (p.n == 0 || p.elements == 0) return cudaSuccess;
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool wide = p.elements % kWidest<T> == 0 && aligned(p.pictures, 16) &&
                      aligned(p.rows, 16) && aligned(p.shown, 16);
    return wide ? run<T, kWidest<T>>(p, stream) : run<T, 1>(p, stream);
  });
}

}  // namespace cyclegan_fast
