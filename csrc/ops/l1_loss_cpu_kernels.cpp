// SPDX-License-Identifier: MIT
// l1_loss on the CPU; compiled once per instruction set.
#include "common/chunks.h"
#include "common/unit.h"
#include "ops/loss_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

template <class T>
struct Difference {
  const T* a;
  const T* b;

  CYCLEGAN_FAST_INLINE Vec<T> at(int64_t i) const { return load(a + i) - load(b + i); }
  CYCLEGAN_FAST_INLINE Vec<T> partial_at(int64_t i, int64_t count) const {
    return load_partial(a + i, count) - load_partial(b + i, count);
  }
};

template <class T, class Params>
CYCLEGAN_FAST_INLINE Difference<T> difference(const Params& p) {
  return {static_cast<const T*>(p.a), static_cast<const T*>(p.b)};
}

void fwd(const L1LossFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    const auto magnitude = [](Vec<T> d) { return d < 0 ? -d : d; };
    for (int64_t chunk = begin; chunk < end; ++chunk)
      static_cast<Acc<T>*>(p.workspace)[chunk] =
          static_cast<Acc<T>>(sum_chunk<T>(chunk, p.numel, difference<T>(p), magnitude));
  });
}

void finish(const L1LossFwdParams& p) {
  with_dtype(p.dtype,
             [&](auto type) { finish_mean<Acc<decltype(type)>>(p.workspace, p.numel, p.loss); });
}

void bwd(const L1LossBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    const Acc<T> each = *static_cast<const Acc<T>*>(p.grad_loss) / static_cast<Acc<T>>(p.numel);
    const Vec<T> up = broadcast<Acc<T>>(each);
    // d itself where it is neither above nor below zero: 0, or NaN.
    const auto signed_step = [=](Vec<T> d) { return d > 0 ? up : d < 0 ? -up : d; };
    for (int64_t chunk = begin; chunk < end; ++chunk)
      write_chunk(chunk, p.numel, difference<T>(p), signed_step, static_cast<T*>(p.grad_a),
                  static_cast<T*>(p.grad_b));
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(L1LossKernels, l1_loss) = {.fwd = fwd, .finish = finish, .bwd = bwd};

}  // namespace cyclegan_fast
