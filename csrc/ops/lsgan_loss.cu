// SPDX-License-Identifier: MIT
// lsgan_loss: the mean of (pred - target)^2, target a number or a tensor.
#include "ops/loss.cuh"
#include "ops/loss_cuda.h"

namespace cyclegan_fast {
namespace {

struct Lsgan {
  static constexpr bool kNotesSign = false;
  template <typename A>
  __device__ static A term(A d) {
    return d * d;
  }
  template <typename A>
  __device__ static A derivative(A d) {
    return 2 * d;
  }
};

template <typename T, typename Params>
LossArguments<T> arguments(const Params& p) {
  LossArguments<T> result{};
  result.numel = p.numel;
  result.a = static_cast<const T*>(p.pred);
  result.b = static_cast<const T*>(p.target);
  result.target = static_cast<Accumulator<T>>(p.target_value);
  return result;
}

}  // namespace

cudaError_t lsgan_loss_fwd(const LsganLossFwdParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LossArguments<T> all = arguments<T>(p);
    all.loss = static_cast<Accumulator<T>*>(p.loss);
    all.partial = static_cast<Accumulator<T>*>(p.workspace);
    return loss_forward<Lsgan>(all, stream);
  });
}

cudaError_t lsgan_loss_bwd(const LsganLossBwdParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LossArguments<T> all = arguments<T>(p);
    all.grad_loss = static_cast<const Accumulator<T>*>(p.grad_loss);
    all.grad_a = static_cast<T*>(p.grad_pred);
    all.grad_b = static_cast<T*>(p.grad_target);
    return loss_backward<Lsgan>(all, stream);
  });
}

}  // namespace cyclegan_fast
