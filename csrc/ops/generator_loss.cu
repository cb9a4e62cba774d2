// SPDX-License-Identifier: MIT
// generator_loss on CUDA: one launch sums every term by chunks and writes the gradients, a second
// one makes losses of the sums. A block takes one chunk of one group, of any of the four: no tensor
// waits for another's launch.
#include "common/dispatch.cuh"
#include "common/launch.cuh"
#include "common/reduce.cuh"
#include "ops/generator_loss_cuda.h"

namespace cyclegan_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ inline float tanh_of(float z) { return tanhf(z); }
__device__ inline double tanh_of(double z) { return tanh(z); }

// kWidth neighbours as the accumulator sees them, in accesses of at most 16 bytes.
template <int kWidth, typename R, typename A>
__device__ inline void load_wide(const R* from, A (&to)[kWidth]) {
  constexpr int kStep = kWidth < kWidest<R> ? kWidth : kWidest<R>;
#pragma unroll
  for (int first = 0; first < kWidth; first += kStep) {
    const Vector<R, kStep> loaded = load_vector<R, kStep>(from + first);
#pragma unroll
    for (int i = 0; i < kStep; ++i) to[first + i] = element(loaded, i);
  }
}

// A block's group and its chunk there.
__device__ inline int find_group(const GeneratorLossFwdParams& p, int64_t& chunk) {
  int group = 0;
  for (; chunk >= p.groups[group].chunks; ++group) chunk -= p.groups[group].chunks;
  return group;
}

// The terms of kWidth elements of one tensor, summed; their gradients written.
template <int kWidth, typename T, typename A>
__device__ inline A add_terms(const GeneratorLossTerm& term, int64_t at, const A (&target)[kWidth],
                              bool judged, bool tanh, A factor) {
  A value[kWidth], gradient[kWidth], sum = 0;
  load_wide<kWidth>(static_cast<const T*>(term.made) + at, value);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    A derivative = 1;
    if (tanh) {
      value[i] = tanh_of(value[i]);
      derivative = 1 - value[i] * value[i];
    }
    const A d = value[i] - target[i];
    sum += judged ? d * d : d < 0 ? -d : d;
    gradient[i] = factor * (judged ? d : derivative * static_cast<A>((d > 0) - (d < 0)));
  }
  if (term.grad) store(gradient, static_cast<T*>(term.grad) + at);
  return sum;
}

template <typename T, typename R, int kWidth>
__global__ void __launch_bounds__(kThreads)
    generator_loss_partial_kernel(const GeneratorLossFwdParams p) {
  using A = Accumulator<T>;
  __shared__ A shared[kWarps];
  int64_t chunk = blockIdx.x;
  const GeneratorLossGroup& group = p.groups[find_group(p, chunk)];
  const bool judged = group.target == nullptr, tanh = p.tanh && !judged;
  const A scale = p.scale ? *static_cast<const A*>(p.scale) : A(1);
  const A each = scale / static_cast<A>(group.numel);
  const A* weights = static_cast<const A*>(p.weights) - kAdversarialTerms;
  A factor[2];
#pragma unroll
  for (int t = 0; t < 2; ++t) factor[t] = judged ? 2 * each : weights[group.terms[t].loss] * each;

  A sum[2] = {};
  const auto add = [&](auto width, int64_t at) {
    constexpr int kCount = decltype(width)::kLanes;
    A target[kCount];
    if (judged) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) target[i] = 1;
    } else {
      load_wide<kCount>(static_cast<const R*>(group.target) + at, target);
    }
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      if (group.terms[t].made)
        sum[t] += add_terms<kCount, T>(group.terms[t], at, target, judged, tanh, factor[t]);
    }
  };
  const int64_t begin = chunk * kLossChunk;
  const int64_t end = min(begin + kLossChunk, group.numel);
  int64_t at = begin + threadIdx.x * kWidth;
  for (; at + kWidth <= end; at += kThreads * kWidth) add(Lanes<kWidth>{}, at);
  // What is left over of a whole vector, less than one in all.
  const int64_t tail = end - (end - begin) % kWidth + threadIdx.x;
  if (kWidth > 1 && tail < end) add(Lanes<1>{}, tail);
#pragma unroll
  for (int t = 0; t < 2; ++t) {
    if (!group.terms[t].made) continue;
    const A whole = block_sum(sum[t], shared);
    if (threadIdx.x == 0) static_cast<A*>(p.workspace)[group.terms[t].partial + chunk] = whole;
  }
}

// A warp sums the chunks of one term: all terms at once, and one barrier before the total.
template <typename A>
__global__ void __launch_bounds__(kThreads)
    generator_loss_finish_kernel(const GeneratorLossFwdParams p) {
  static_assert(kWarps == 2 * kGeneratorGroups);
  __shared__ A shared[kWarps];
  A* losses = static_cast<A*>(p.losses);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const GeneratorLossGroup& group = p.groups[warp / 2];
  const GeneratorLossTerm& term = group.terms[warp % 2];
  A sum = 0;
  if (term.made) {
    const A* partial = static_cast<const A*>(p.workspace) + term.partial;
    for (int64_t i = lane; i < group.chunks; i += 32) sum += partial[i];
    sum = warp_sum(sum) / static_cast<A>(group.numel);
    if (group.target) sum *= static_cast<const A*>(p.weights)[term.loss - kAdversarialTerms];
  }
  if (threadIdx.x < kGeneratorTerms) losses[threadIdx.x] = 0;  // of terms that are not there
  if (lane == 0) shared[warp] = sum;
  __syncthreads();
  if (lane == 0 && term.made) losses[term.loss] = sum;
  if (threadIdx.x != 0) return;
  A total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared[w];
  *static_cast<A*>(p.total) = p.scale ? total * *static_cast<const A*>(p.scale) : total;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    generator_loss_gradient_kernel(const GeneratorLossBwdParams p) {
  using A = Accumulator<T>;
  int64_t chunk = blockIdx.x;
  int t = 0;
  for (; chunk >= p.terms[t].chunks; ++t) chunk -= p.terms[t].chunks;
  const GeneratorLossScaled& term = p.terms[t];
  const A factor = *static_cast<const A*>(p.grad_total);
  const auto scale = [&](auto width, int64_t at) {
    constexpr int kCount = decltype(width)::kLanes;
    A value[kCount];
    load_wide<kCount>(static_cast<const T*>(term.grad) + at, value);
#pragma unroll
    for (int i = 0; i < kCount; ++i) value[i] *= factor;
    store(value, static_cast<T*>(term.scaled) + at);
  };
  const int64_t begin = chunk * kLossChunk;
  const int64_t end = min(begin + kLossChunk, term.numel);
  for (int64_t at = begin + threadIdx.x * kWidth; at + kWidth <= end; at += kThreads * kWidth)
    scale(Lanes<kWidth>{}, at);
  const int64_t tail = end - (end - begin) % kWidth + threadIdx.x;
  if (kWidth > 1 && tail < end) scale(Lanes<1>{}, tail);
}

bool wide(const GeneratorLossFwdParams& p) {
  for (const GeneratorLossGroup& group : p.groups) {
    if (!aligned(group.target, 16)) return false;
    for (const GeneratorLossTerm& term : group.terms)
      if (!aligned(term.made, 16) || !aligned(term.grad, 16)) return false;
  }
  return true;
}

template <typename T, typename R>
cudaError_t run(const GeneratorLossFwdParams& p, unsigned blocks, cudaStream_t stream) {
  const auto kernel = wide(p) ? generator_loss_partial_kernel<T, R, kWidest<T>>
                              : generator_loss_partial_kernel<T, R, 1>;
  const cudaError_t error = launch(kernel, blocks, kThreads, 0, stream, p);
  if (error != cudaSuccess) return error;
  return launch(generator_loss_finish_kernel<Accumulator<T>>, 1, kThreads, 0, stream, p);
}

}  // namespace

cudaError_t generator_loss_fwd(const GeneratorLossFwdParams& p, cudaStream_t stream) {
  const int64_t chunks = generator_loss_chunks(p);
  if (chunks >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  const auto blocks = static_cast<unsigned>(chunks);
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return p.target_dtype == p.dtype ? run<T, T>(p, blocks, stream)
                                     : run<T, Accumulator<T>>(p, blocks, stream);
  });
}

cudaError_t generator_loss_bwd(const GeneratorLossBwdParams& p, cudaStream_t stream) {
  int64_t chunks = 0;
  bool wide = true;
  for (const GeneratorLossScaled& term : p.terms) {
    if (!term.grad) continue;
    chunks += term.chunks;
    wide = wide && aligned(term.grad, 16) && aligned(term.scaled, 16);
  }
  if (chunks == 0) return cudaSuccess;
  if (chunks >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto kernel =
        wide ? generator_loss_gradient_kernel<T, kWidest<T>> : generator_loss_gradient_kernel<T, 1>;
    return launch(kernel, static_cast<unsigned>(chunks), kThreads, 0, stream, p);
  });
}

}  // namespace cyclegan_fast
