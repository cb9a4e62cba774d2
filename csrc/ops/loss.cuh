// SPDX-License-Identifier: MIT
// The kernels of a loss that is the mean of a term of a - b: Loss::term(d) forward, and backward
// d loss / d a = Loss::derivative(d) * grad_loss / numel = -d loss / d b. Where the derivative is
// the sign alone (Loss::kNotesSign), forward notes it and backward reads neither a nor b.
#pragma once

#include "common/dispatch.cuh"
#include "common/launch.cuh"
#include "common/reduce.cuh"
#include "ops/loss.h"

namespace cyclegan_fast {

constexpr int kLossThreads = 256;
constexpr int kLossWarps = kLossThreads / 32;
// Four blocks per multiprocessor of a large GPU; the same for every GPU, so that results are too.
constexpr int64_t kLossBlocks = 512;

template <typename T>
struct LossArguments {
  using A = Accumulator<T>;
  int64_t numel;
  const T* a;
  const T* b;  // or null: then `target`
  A target;
  const A* grad_loss;
  A *loss, *partial;
  int8_t* sign;         // written by forward, or null
  const int8_t* noted;  // the same, read by backward
  T *grad_a, *grad_b;
};

// a - b, for kWidth elements from `at` on.
template <int kWidth, typename T>
__device__ inline void load_difference(const LossArguments<T>& p, int64_t at,
                                       Accumulator<T> (&d)[kWidth]) {
  unpack(load_vector<T, kWidth>(p.a + at), d);
  if (p.b) {
    const Vector<T, kWidth> b = load_vector<T, kWidth>(p.b + at);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) d[i] -= element(b, i);
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) d[i] -= p.target;
  }
}

template <int kWidth, typename A>
__device__ inline void store_sign(const A (&d)[kWidth], int8_t* to) {
  Vector<int8_t, kWidth> sign;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sign.lane[i] = static_cast<int8_t>((d[i] > 0) - (d[i] < 0));
  store_vector(sign, to);
}

// The terms of kWidth elements from `at` on, summed.
template <typename Loss, typename T, int kWidth>
__device__ inline Accumulator<T> sum_terms(const LossArguments<T>& p, int64_t at) {
  Accumulator<T> d[kWidth], sum = 0;
  load_difference<kWidth>(p, at, d);
  if constexpr (Loss::kNotesSign) {
    if (p.sign) store_sign(d, p.sign + at);
  }
#pragma unroll
  for (int k = 0; k < kWidth; ++k) sum += Loss::term(d[k]);
  return sum;
}

// One partial sum per block; a single block writes the mean itself.
template <typename Loss, typename T, int kWidth>
__global__ void __launch_bounds__(kLossThreads) loss_partial_kernel(const LossArguments<T> p) {
  using A = Accumulator<T>;
  __shared__ A shared[kLossWarps];
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kLossThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kLossThreads;
  const int64_t vectors = p.numel / kWidth;
  A sum = 0;
#pragma unroll 2
  for (int64_t i = thread; i < vectors; i += threads)
    sum += sum_terms<Loss, T, kWidth>(p, i * kWidth);
  const int64_t tail = vectors * kWidth + thread;
  if (tail < p.numel) sum += sum_terms<Loss, T, 1>(p, tail);
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) {
    if (gridDim.x == 1) {
      *p.loss = sum / static_cast<A>(p.numel);
    } else {
      p.partial[blockIdx.x] = sum;
    }
  }
}

template <typename A>
__global__ void __launch_bounds__(kLossThreads)
    loss_mean_kernel(const A* partial, int count, int64_t numel, A* loss) {
  __shared__ A shared[kLossWarps];
  A sum = 0;
  for (int i = threadIdx.x; i < count; i += kLossThreads) sum += partial[i];
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) *loss = sum / static_cast<A>(numel);
}

template <typename Loss, typename T, int kWidth>
__device__ inline void write_gradients(const LossArguments<T>& p, int64_t at,
                                       Accumulator<T> upstream) {
  using A = Accumulator<T>;
  A d[kWidth];
  if constexpr (Loss::kNotesSign) {
    const auto sign = load_vector<int8_t, kWidth>(p.noted + at);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) d[i] = static_cast<A>(sign.lane[i]);
  } else {
    load_difference<kWidth>(p, at, d);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) d[i] = Loss::derivative(d[i]);
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) d[i] *= upstream;
  if (p.grad_a) store(d, p.grad_a + at);
  if (!p.grad_b) return;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) d[i] = -d[i];
  store(d, p.grad_b + at);
}

template <typename Loss, typename T, int kWidth>
__global__ void __launch_bounds__(kLossThreads) loss_gradient_kernel(const LossArguments<T> p) {
  using A = Accumulator<T>;
  const A upstream = *p.grad_loss / static_cast<A>(p.numel);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kLossThreads + threadIdx.x;
  const int64_t vectors = p.numel / kWidth;
  if (thread < vectors) write_gradients<Loss, T, kWidth>(p, thread * kWidth, upstream);
  const int64_t tail = vectors * kWidth + thread;
  if (kWidth > 1 && tail < p.numel) write_gradients<Loss, T, 1>(p, tail, upstream);
}

template <typename T>
bool wide(const LossArguments<T>& p) {
  return aligned(p.a, 16) && aligned(p.b, 16) && aligned(p.grad_a, 16) && aligned(p.grad_b, 16) &&
         aligned(p.sign, kWidest<T>) && aligned(p.noted, kWidest<T>);
}

template <typename Loss, typename T>
cudaError_t loss_forward(const LossArguments<T>& p, cudaStream_t stream) {
  using A = Accumulator<T>;
  const int64_t chunks = loss_workspace(p.numel);
  const unsigned blocks = static_cast<unsigned>(chunks < kLossBlocks ? chunks : kLossBlocks);
  const auto kernel =
      wide(p) ? loss_partial_kernel<Loss, T, kWidest<T>> : loss_partial_kernel<Loss, T, 1>;
  const cudaError_t error = launch(kernel, blocks, kLossThreads, 0, stream, p);
  if (error != cudaSuccess || blocks == 1) return error;
  return launch(loss_mean_kernel<A>, 1, kLossThreads, 0, stream, p.partial,
                static_cast<int>(blocks), p.numel, p.loss);
}

template <typename Loss, typename T>
cudaError_t loss_backward(const LossArguments<T>& p, cudaStream_t stream) {
  if (p.numel == 0 || (!p.grad_a && !p.grad_b)) return cudaSuccess;
  const int width = wide(p) ? kWidest<T> : 1;
  const int64_t per_block = int64_t{kLossThreads} * width;
  const int64_t blocks = (p.numel + per_block - 1) / per_block;
  if (blocks >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  const auto kernel =
      width > 1 ? loss_gradient_kernel<Loss, T, kWidest<T>> : loss_gradient_kernel<Loss, T, 1>;
  return launch(kernel, static_cast<unsigned>(blocks), kLossThreads, 0, stream, p);
}

}  // namespace cyclegan_fast
