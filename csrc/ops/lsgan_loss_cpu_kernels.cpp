// SPDX-License-Identifier: MIT
// lsgan_loss on the CPU; compiled once per instruction set.
#include "common/chunks.h"
#include "common/unit.h"
#include "ops/loss_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

template <class T>
struct Difference {
  const T* pred;
  const T* target;  // null: the constant
  Vec<T> constant;

  CYCLEGAN_FAST_INLINE Vec<T> at(int64_t i) const {
    return load(pred + i) - (target ? load(target + i) : constant);
  }
  CYCLEGAN_FAST_INLINE Vec<T> partial_at(int64_t i, int64_t count) const {
    const Vec<T> d =
        load_partial(pred + i, count) - (target ? load_partial(target + i, count) : constant);
    return keep_first<Acc<T>>(d, count);
  }
};

template <class T, class Params>
CYCLEGAN_FAST_INLINE Difference<T> difference(const Params& p) {
  return {static_cast<const T*>(p.pred), static_cast<const T*>(p.target),
          broadcast<Acc<T>>(static_cast<Acc<T>>(p.target_value))};
}

void fwd(const LsganLossFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    const auto square = [](Vec<T> d) { return d * d; };
    for (int64_t chunk = begin; chunk < end; ++chunk)
      static_cast<Acc<T>*>(p.workspace)[chunk] =
          static_cast<Acc<T>>(sum_chunk<T>(chunk, p.numel, difference<T>(p), square));
  });
}

void finish(const LsganLossFwdParams& p) {
  with_dtype(p.dtype,
             [&](auto type) { finish_mean<Acc<decltype(type)>>(p.workspace, p.numel, p.loss); });
}

void bwd(const LsganLossBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    const Acc<T> each = 2 * *static_cast<const Acc<T>*>(p.grad_loss) / static_cast<Acc<T>>(p.numel);
    const auto scaled = [each](Vec<T> d) { return d * each; };
    for (int64_t chunk = begin; chunk < end; ++chunk)
      write_chunk(chunk, p.numel, difference<T>(p), scaled, static_cast<T*>(p.grad_pred),
                  static_cast<T*>(p.grad_target));
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(LsganLossKernels, lsgan_loss) = {
    .fwd = fwd, .finish = finish, .bwd = bwd};

}  // namespace cyclegan_fast
