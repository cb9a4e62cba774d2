// SPDX-License-Identifier: MIT
// l1_loss: the mean of |a - b|.
#include "ops/loss.cuh"
#include "ops/loss_cuda.h"

namespace cyclegan_fast {
namespace {

struct L1 {
  static constexpr bool kNotesSign = true;
  template <typename A>
  __device__ static A term(A d) {
    return d < 0 ? -d : d;
  }
};

}  // namespace

cudaError_t l1_loss_fwd(const L1LossFwdParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LossArguments<T> all{};
    all.numel = p.numel;
    all.a = static_cast<const T*>(p.a);
    all.b = static_cast<const T*>(p.b);
    all.sign = p.sign;
    all.loss = static_cast<Accumulator<T>*>(p.loss);
    all.partial = static_cast<Accumulator<T>*>(p.workspace);
    return loss_forward<L1>(all, stream);
  });
}

cudaError_t l1_loss_bwd(const L1LossBwdParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LossArguments<T> all{};
    all.numel = p.numel;
    all.noted = p.sign;
    all.grad_loss = static_cast<const Accumulator<T>*>(p.grad_loss);
    all.grad_a = static_cast<T*>(p.grad_a);
    all.grad_b = static_cast<T*>(p.grad_b);
    return loss_backward<L1>(all, stream);
  });
}

}  // namespace cyclegan_fast
