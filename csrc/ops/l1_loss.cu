// SPDX-License-Identifier: MIT
// l1_loss: the mean of |a - b|.
#include "ops/loss.cuh"
#include "ops/loss_cuda.h"

namespace cyclegan_fast {
namespace {

struct L1 {
  template <typename A>
  __device__ static A term(A d) {
    return d < 0 ? -d : d;
  }
  // As torch.sign: 0 at 0 and at nan.
  template <typename A>
  __device__ static A derivative(A d) {
    return d > 0 ? A(1) : d < 0 ? A(-1) : A(0);
  }
};

template <typename T, typename Params>
LossArguments<T> arguments(const Params& p) {
  LossArguments<T> result{};
  result.numel = p.numel;
  result.a = static_cast<const T*>(p.a);
  result.b = static_cast<const T*>(p.b);
  return result;
}

}  // namespace

cudaError_t l1_loss_fwd(const L1LossFwdParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LossArguments<T> all = arguments<T>(p);
    all.loss = static_cast<Accumulator<T>*>(p.loss);
    all.partial = static_cast<Accumulator<T>*>(p.workspace);
    return loss_forward<L1>(all, stream);
  });
}

cudaError_t l1_loss_bwd(const L1LossBwdParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LossArguments<T> all = arguments<T>(p);
    all.grad_loss = static_cast<const Accumulator<T>*>(p.grad_loss);
    all.grad_a = static_cast<T*>(p.grad_a);
    all.grad_b = static_cast<T*>(p.grad_b);
    return loss_backward<L1>(all, stream);
  });
}

}  // namespace cyclegan_fast
