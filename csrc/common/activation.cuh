// SPDX-License-Identifier: MIT
// Activations and their derivatives, as PyTorch defines them at 0 and at nan.
#pragma once

namespace cyclegan_fast {

template <typename A>
struct Activation {
  bool relu;
  A slope;  // below zero: 0 for relu, 1 for none

  Activation(int act, double negative_slope)
      : relu(act == 1), slope(static_cast<A>(act == 0 ? 1.0 : act == 1 ? 0.0 : negative_slope)) {}

  // relu by comparison, not by 0 * z: the latter is nan at -inf.
  __device__ A operator()(A z) const { return relu ? (z < 0 ? A(0) : z) : (z > 0 ? z : z * slope); }
  __device__ A derivative(A z) const { return z > 0 ? A(1) : slope; }
};

}  // namespace cyclegan_fast
