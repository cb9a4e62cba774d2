// SPDX-License-Identifier: MIT
// l1_loss on the CPU; compiled once per instruction set.
#include "common/chunks.h"
#include "common/unit.h"
#include "ops/loss_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

// a - b; the signs are noted on the way.
template <class T>
struct Difference {
  const T* a;
  const T* b;
  int8_t* sign;  // or null

  CYCLEGAN_FAST_INLINE Vec<T> at(int64_t i) const {
    const Vec<T> d = load(a + i) - load(b + i);
    if (sign) store_sign<T>(sign + i, d);
    return d;
  }
  CYCLEGAN_FAST_INLINE Vec<T> partial_at(int64_t i, int64_t count) const {
    const Vec<T> d = load_partial(a + i, count) - load_partial(b + i, count);
    if (sign) {
      int8_t lanes[kLanes<T>];
      store_sign<T>(lanes, d);
      for (int64_t k = 0; k < count; ++k) sign[i + k] = lanes[k];
    }
    return d;
  }
};

// The signs that forward noted, as numbers to compute with.
template <class T>
struct Sign {
  const int8_t* sign;

  CYCLEGAN_FAST_INLINE Vec<T> at(int64_t i) const { return load_sign<T>(sign + i); }
  CYCLEGAN_FAST_INLINE Vec<T> partial_at(int64_t i, int64_t count) const {
    int8_t lanes[kLanes<T>] = {};
    for (int64_t k = 0; k < count; ++k) lanes[k] = sign[i + k];
    return load_sign<T>(lanes);
  }
};

void fwd(const L1LossFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    const Difference<T> difference{static_cast<const T*>(p.a), static_cast<const T*>(p.b), p.sign};
    const auto magnitude = [](Vec<T> d) { return d < 0 ? -d : d; };
    for (int64_t chunk = begin; chunk < end; ++chunk)
      static_cast<Acc<T>*>(p.workspace)[chunk] =
          static_cast<Acc<T>>(sum_chunk<T>(chunk, p.numel, difference, magnitude));
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
    const auto scaled = [each](Vec<T> sign) { return sign * each; };
    for (int64_t chunk = begin; chunk < end; ++chunk)
      write_chunk(chunk, p.numel, Sign<T>{p.sign}, scaled, static_cast<T*>(p.grad_a),
                  static_cast<T*>(p.grad_b));
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(L1LossKernels, l1_loss) = {.fwd = fwd, .finish = finish, .bwd = bwd};

}  // namespace cyclegan_fast
