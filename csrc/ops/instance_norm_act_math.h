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

// Adding zero turns relu's -0 into 0.
template <class T>
CYCLEGAN_FAST_INLINE Vec<T> activate(Vec<T> z, Vec<T> slope) {
  return z > 0 ? z : z * slope + broadcast<Acc<T>>(0);
}

template <class T>
CYCLEGAN_FAST_INLINE Vec<T> activation_gradient(Vec<T> g, Vec<T> z, Vec<T> slope) {
  return z > 0 ? g : g * slope;
}

// Element i of an optional per-channel array.
template <class A>
CYCLEGAN_FAST_INLINE A channel_value(const void* values, int64_t i, A absent) {
  return values ? static_cast<const A*>(values)[i] : absent;
}

}  // namespace
}  // namespace cyclegan_fast
