// SPDX-License-Identifier: MIT
// The formula of instance_norm_act on vectors. Anonymous namespace: see common/vec.h.
#pragma once

#include "common/vec.h"
#include "ops/instance_norm_act.h"

namespace cyclegan_fast {
namespace {

// What a channel multiplies and adds, one channel in all lanes or one per lane.
template <class T>
struct Affine {
  Vec<T> mean, scale, bias;  // scale = rstd * weight

  // Before the activation. Forward and backward share it, so that both see the same sign.
  CYCLEGAN_FAST_INLINE Vec<T> operator()(Vec<T> deviation) const {
    return deviation * scale + bias;
  }
};

// Which activation it is does not change within a loop, so asking costs nothing that memory does
// not hide; a kernel per activation was no faster. relu compares: a product with zero is NaN at
// infinity.
template <class T>
class Activation {
 public:
  CYCLEGAN_FAST_INLINE explicit Activation(const InstanceNormActSizes& sizes)
      : act_(sizes.act), slope_(broadcast<Acc<T>>(static_cast<Acc<T>>(activation_slope(sizes)))) {}

  CYCLEGAN_FAST_INLINE Vec<T> operator()(Vec<T> z) const {
    if (act_ == 0) return z;
    if (act_ == 1) return Vec<T>{} > z ? Vec<T>{} : z;
    return z > 0 ? z : z * slope_;
  }

  // dz of g; as in PyTorch, relu's derivative is 0 at 0 and 1 at nan.
  CYCLEGAN_FAST_INLINE Vec<T> gradient(Vec<T> g, Vec<T> z) const {
    if (act_ == 0) return g;
    if (act_ == 1) return z <= 0 ? Vec<T>{} : g;
    return z > 0 ? g : g * slope_;
  }

 private:
  int act_;
  Vec<T> slope_;
};

// Element i of an optional per-channel array.
template <class A>
CYCLEGAN_FAST_INLINE A channel_value(const void* values, int64_t i, A absent) {
  return values ? static_cast<const A*>(values)[i] : absent;
}

}  // namespace
}  // namespace cyclegan_fast
