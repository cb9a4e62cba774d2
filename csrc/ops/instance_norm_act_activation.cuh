// SPDX-License-Identifier: MIT
// Activations and their derivatives, as PyTorch defines them at 0 and at nan.
#pragma once

#include "ops/instance_norm_act.h"

namespace cyclegan_fast {

template <typename A>
struct Activation {
  bool relu;
  A slope;  // below zero: 0 for relu, 1 for none

  explicit Activation(const InstanceNormActSizes& sizes)
      : relu(sizes.act == 1), slope(static_cast<A>(activation_slope(sizes))) {}

  // relu by comparison, not by 0 * z: the latter is nan at -inf.
  __device__ A operator()(A z) const { return z < 0 ? (relu ? A(0) : z * slope) : z; }
  __device__ A derivative(A z) const { return z > 0 ? A(1) : slope; }
};

}  // namespace cyclegan_fast
