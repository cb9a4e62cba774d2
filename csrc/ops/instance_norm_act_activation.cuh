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

  // relu by comparison, not by a product with 0, which is nan at infinity.
  __device__ A operator()(A z) const { return z < 0 ? (relu ? A(0) : z * slope) : z; }
  // The gradient at z of what has gradient g; at 0 as below 0, at nan as PyTorch has it.
  __device__ A gradient(A g, A z) const {
    if (relu) return z <= 0 ? A(0) : g;
    return z > 0 ? g : g * slope;
  }
};

}  // namespace cyclegan_fast
