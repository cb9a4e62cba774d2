// SPDX-License-Identifier: MIT
// instance_norm_act forward, NCHW: one launch, a plane stays in shared memory between its
// statistics and its writing where it fits there.
#include "common/dispatch.cuh"
#include "common/launch.cuh"
#include "common/strided.cuh"
#include "ops/instance_norm_act_activation.cuh"
#include "ops/instance_norm_act_nchw.cuh"

namespace cyclegan_fast {
namespace {

constexpr int kUnroll = 4;                  // independent loads in flight per thread
constexpr int64_t kSharedBytes = 32 << 10;  // for planes; with the static part below 48 KB

template <typename T>
struct ForwardArguments {
  using A = Accumulator<T>;
  NchwGrid grid;
  Activation<A> act;
  A eps;
  const T* x;
  const A *weight, *bias;
  Strided residual;
  bool flat;   // outputs lie as inputs do: no pad, and the residual's planes are contiguous
  bool kept;   // planes are kept in shared memory
  bool given;  // mean and rstd are there already
  T* y;
  A *mean, *rstd;
};

// Mean of a plane, and the sum of its squared deviations from it; the plane goes into `kept` on the
// way where that is asked for. All threads of the block take part, idle ones too.
template <typename T, int kWidth>
__device__ inline void take_moments(const ForwardArguments<T>& p, const T* x, bool active, T* kept,
                                    Accumulator<T>& plane_mean, Accumulator<T>& squares) {
  using A = Accumulator<T>;
  __shared__ A shared[kPlaneWarps];
  const int pixels = p.grid.pixels, thread = threadIdx.x, threads = blockDim.x;
  // A pixel taken off first keeps partial means small: exact sums even far from zero.
  const A origin = active ? static_cast<A>(*x) : A(0);
  A mean = 0, m2 = 0, counted = 0;
  const int vectors = active ? pixels / kWidth : 0;
  const int mine = thread < vectors ? (vectors - thread - 1) / threads + 1 : 0;
  for (int done = 0; done < mine; done += kUnroll) {
    Vector<T, kWidth> loaded[kUnroll] = {};
    A value[kUnroll * kWidth];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = (thread + (done + u) * threads) * kWidth;
      if (done + u < mine) loaded[u] = load_vector<T, kWidth>(x + at);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = (thread + (done + u) * threads) * kWidth;
      if (p.kept && done + u < mine) store_vector(loaded[u], kept + at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) value[u * kWidth + i] = element(loaded[u], i) - origin;
    }
    const int fresh = min(mine - done, kUnroll) * kWidth;
    const MergeWeights<A> weights(counted, static_cast<A>(fresh));
    merge_values(mean, m2, value, fresh, A(1) / static_cast<A>(fresh), weights);
    counted += static_cast<A>(fresh);
  }
  const A shifted = block_sum(counted * mean, shared) / static_cast<A>(pixels);
  const A d = mean - shifted;
  squares = block_sum(m2 + counted * d * d, shared);
  plane_mean = origin + shifted;
  // A warp that has a plane to itself has met no barrier yet: what other lanes kept needs one.
  __syncthreads();
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kPlaneThreads, 1)
    nchw_forward_kernel(const ForwardArguments<T> p) {
  using A = Accumulator<T>;
  CYCLEGAN_FAST_SHARED(T, shared_planes);
  const int64_t plane = plane_of_thread();
  const bool active = plane < p.grid.planes;
  const int pixels = p.grid.pixels, thread = threadIdx.x, threads = blockDim.x;
  const T* x = p.x + plane * pixels;
  T* kept = shared_planes + threadIdx.y * pixels;

  A mean = 0, squares = 0;
  if (!p.given) take_moments<T, kWidth>(p, x, active, kept, mean, squares);
  if (!active) return;

  const int n = static_cast<int>(p.grid.channels_divider.quotient(plane));
  const int channel = static_cast<int>(plane) - n * p.grid.channels;
  if (p.given) mean = p.mean[plane];
  const A rstd =
      p.given ? p.rstd[plane] : reciprocal_root(squares / static_cast<A>(pixels) + p.eps);
  if (thread == 0 && !p.given) {
    p.mean[plane] = mean;
    p.rstd[plane] = rstd;
  }
  const A scale = p.weight ? rstd * p.weight[channel] : rstd;
  const A bias = p.bias ? p.bias[channel] : A(0);
  T* y = p.y + plane * p.grid.padded_pixels;
  const T* residual = static_cast<const T*>(p.residual.data);
  if (residual) residual += n * p.residual.n + channel * p.residual.c;

  if (p.flat) {
#pragma unroll 2
    for (int at = thread * kWidth; at < pixels; at += threads * kWidth) {
      A value[kWidth];
      unpack(load_vector<T, kWidth>(p.kept ? kept + at : x + at), value);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) value[i] = p.act((value[i] - mean) * scale + bias);
      if (residual) {
        const auto added = load_vector<T, kWidth>(residual + at);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) value[i] += element(added, i);
      }
      store(value, y + at);
    }
    return;
  }
#pragma unroll 4
  for (int at = thread; at < p.grid.padded_pixels; at += threads) {
    const int padded_h = static_cast<int>(p.grid.padded_row.quotient(at));
    const int padded_w = at - padded_h * (p.grid.width + 2 * p.grid.pad);
    const int h = reflected(padded_h, p.grid.pad, p.grid.height);
    const int w = reflected(padded_w, p.grid.pad, p.grid.width);
    const int from = h * p.grid.width + w;
    A value = static_cast<A>(p.kept ? kept[from] : x[from]);
    value = p.act((value - mean) * scale + bias);
    if (residual) value += static_cast<A>(residual[h * p.residual.h + w * p.residual.w]);
    y[at] = rounded<T>(value);
  }
}

template <typename T, int kWidth>
cudaError_t run(const InstanceNormActFwdParams& p, bool flat, cudaStream_t stream) {
  using A = Accumulator<T>;
  const NchwGrid grid(p);
  const int64_t bytes = int64_t{grid.pixels} * grid.threads().y * sizeof(T);
  const bool kept = !p.given && bytes <= kSharedBytes;
  const ForwardArguments<T> arguments{
      grid,
      Activation<A>(p),
      static_cast<A>(p.eps),
      static_cast<const T*>(p.x),
      static_cast<const A*>(p.weight),
      static_cast<const A*>(p.bias),
      p.residual,
      flat,
      kept,
      p.given,
      static_cast<T*>(p.y),
      static_cast<A*>(p.mean),
      static_cast<A*>(p.rstd),
  };
  if (grid.blocks() == 0) return cudaErrorInvalidConfiguration;
  return launch(nchw_forward_kernel<T, kWidth>, grid.blocks(), grid.threads(), kept ? bytes : 0,
                stream, arguments);
}

}  // namespace

cudaError_t instance_norm_act_fwd_nchw(const InstanceNormActFwdParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = kWidest<T>;
    const bool wide = p.h * p.w % kWidth == 0 && aligned(p.x, 16) && aligned(p.y, 16);
    if (wide && p.pad == 0 && has_flat_planes<T>(p.residual, p.w, kWidth)) {
      return run<T, kWidth>(p, true, stream);
    }
    return wide ? run<T, kWidth>(p, false, stream) : run<T, 1>(p, false, stream);
  });
}

}  // namespace cyclegan_fast
