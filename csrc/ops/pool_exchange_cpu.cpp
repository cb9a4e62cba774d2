// SPDX-License-Identifier: MIT
// pool_exchange on the CPU: registers the raw op and shares the chunks out among the threads.
#include "ops/pool_exchange_args.h"
#include "ops/pool_exchange_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

void pool_exchange_fwd(const Tensor& rows,      // [size + 1, C, H, W]
                       const Tensor& pictures,  // [N, C, H, W], rows' layout
                       const Tensor& take,      // int64 [N]
                       const Tensor& put,       // int64 [N]
                       const Tensor& shown) {   // [N, C, H, W], rows' layout
  const auto params = pool_exchange_args(rows, pictures, take, put, shown);
  const int64_t chunks = (params.elements + kPoolChunk - 1) / kPoolChunk;
  parallel_for(chunks, 2 * params.n * kPoolChunk, [&](int64_t begin, int64_t end) {
    pool_exchange_kernels().fwd(params, begin, end);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("pool_exchange_fwd", TORCH_BOX(&pool_exchange_fwd));
}

}  // namespace cyclegan_fast
