// SPDX-License-Identifier: MIT
// instance_norm_act backward, channels_last: sums by chunk, then combine and write; or both in one
// launch.
//
// With d = x - mean, dz = g * act'(d * scale + bias), scale = rstd * weight and P pixels per plane:
//   s1 = sum dz, s2 = rstd * sum dz * d,  grad_x = scale * (dz - s1 / P - d * rstd * s2 / P)
#include "common/dispatch.cuh"
#include "common/launch.cuh"
#include "ops/instance_norm_act_nhwc_bwd.cuh"

namespace cyclegan_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kUnroll = 2;  // independent pixels in flight per thread, up to three loads each

// Sums of dz and of dz * d over this block's chunk: for channel threadIdx.x of the slice, where
// there is one. The gradient of the sum goes into grad_residual on the way.
template <typename T, int kWidth>
__device__ inline void chunk_sums(const BackwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                  Accumulator<T>& total1, Accumulator<T>& total2) {
  using A = Accumulator<T>;
  __shared__ A shared[2][kWarps][kMaxSlice];
  const int begin = at.chunk * p.grid.chunk;
  const int end = min(begin + p.grid.chunk, p.grid.pixels);

  A s1[kWidth] = {}, s2[kWidth] = {};
  if (at.active) {
    const Pixels<T, kWidth> pixels(p, at, false);
    A mean[kWidth], scale[kWidth], bias[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const int64_t statistic = at.statistic(p.grid, at.channel + i);
      mean[i] = p.mean[statistic];
      scale[i] = p.rstd[statistic] * (p.weight ? p.weight[at.channel + i] : A(1));
      bias[i] = p.bias ? p.bias[at.channel + i] : A(0);
    }
#pragma unroll 1
    for (int first = begin + at.row; first < end; first += kUnroll * at.rows) {
      typename Pixels<T, kWidth>::Loaded loaded[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (first + u * at.rows < end) pixels.load(first + u * at.rows, loaded[u]);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int pixel = first + u * at.rows;
        if (pixel >= end) continue;
        A g[kWidth];
        pixels.gradient(loaded[u], g);
        if (p.grad_residual) store(g, p.grad_residual + pixels.image + pixels.offset(pixel));
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const A d = element(loaded[u].x, i) - mean[i];
          const A dz = p.act.gradient(g[i], d * scale[i] + bias[i]);
          s1[i] += dz;
          s2[i] += dz * d;
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    s1[i] = warp_sum(s1[i], 1 << p.grid.lane_bits);
    s2[i] = warp_sum(s2[i], 1 << p.grid.lane_bits);
  }
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 < (1u << p.grid.lane_bits)) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      shared[0][warp][at.lane * kWidth + i] = s1[i];
      shared[1][warp][at.lane * kWidth + i] = s2[i];
    }
  }
  __syncthreads();
  const int c = threadIdx.x;
  if (c < at.slice_width(p.grid)) {
    total1 = total2 = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      total1 += shared[0][w][c];
      total2 += shared[1][w][c];
    }
    total2 *= p.rstd[at.statistic(p.grid, at.first_channel + c)];
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, 2)
    nhwc_sums_kernel(const __grid_constant__ Calls<BackwardArguments<T>> calls) {
  const BackwardArguments<T>& p = calls.of[blockIdx.y];
  using A = Accumulator<T>;
  const NhwcPlace<kWidth> at(p.grid, blockIdx.x);
  A s1 = 0, s2 = 0;
  chunk_sums(p, at, s1, s2);
  const int c = threadIdx.x;
  if (c < at.slice_width(p.grid)) {
    A* partial = p.workspace + at.partial(p.grid, at.chunk, at.first_channel + c);
    partial[0] = s1;
    partial[p.grid.channels] = s2;
  }
}

// Constants of grad_x = scale * dz + offset + slope * (x - mean), per channel of the slice.
template <typename A>
struct SliceConstants {
  A mean[kMaxSlice], scale[kMaxSlice], bias[kMaxSlice], offset[kMaxSlice], slope[kMaxSlice];
};

// From the sums over all pixels of channel c of the slice; one block of them writes them out.
template <typename T, int kWidth>
__device__ inline void finish_sums(const BackwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                   int c, Accumulator<T> s1, Accumulator<T> s2,
                                   SliceConstants<Accumulator<T>>& constants) {
  using A = Accumulator<T>;
  const int channel = at.first_channel + c;
  const int64_t statistic = at.statistic(p.grid, channel);
  const A rstd = p.rstd[statistic], scale = rstd * (p.weight ? p.weight[channel] : A(1));
  const A pixels = static_cast<A>(p.grid.pixels);
  constants.mean[c] = p.mean[statistic];
  constants.scale[c] = scale;
  constants.bias[c] = p.bias ? p.bias[channel] : A(0);
  constants.offset[c] = -scale * (s1 / pixels);
  constants.slope[c] = -scale * rstd * (s2 / pixels);
  if (at.chunk == 0) {
    p.sums[statistic] = s1;
    p.sums[p.planes + statistic] = s2;
  }
}

// From the sums of the slice's chunks.
template <typename T, int kWidth>
__device__ inline void combine_sums(const BackwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                    SliceConstants<Accumulator<T>>& constants) {
  using A = Accumulator<T>;
  __shared__ A shared[2][kWarps][kMaxSlice];
  const int warp = threadIdx.x / 32, c = threadIdx.x % 32, channel = at.first_channel + c;
  const bool active = c < at.slice_width(p.grid);
  const int64_t stride = 2 * static_cast<int64_t>(p.grid.channels);
  const A* partial = p.partial + stride * p.partials * at.n + channel;
  A s1 = 0, s2 = 0;
  for (int chunk = warp; active && chunk < p.partials; chunk += kWarps) {
    s1 += partial[chunk * stride];
    s2 += partial[chunk * stride + p.grid.channels];
  }
  shared[0][warp][c] = s1;
  shared[1][warp][c] = s2;
  __syncthreads();
  if (warp == 0 && active) {
    s1 = s2 = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      s1 += shared[0][w][c];
      s2 += shared[1][w][c];
    }
    finish_sums(p, at, c, s1, s2, constants);
  }
  __syncthreads();
}

// Writes the gradient of a chunk. prepare() fills the constants for all threads, while the first
// pixels are on their way.
template <typename T, int kWidth, class Prepare>
__device__ inline void write_gradient(const BackwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                      const SliceConstants<Accumulator<T>>& constants,
                                      const Prepare& prepare) {
  using A = Accumulator<T>;
  const int begin = at.chunk * p.grid.chunk;
  const int end = min(begin + p.grid.chunk, p.grid.pixels);
  const Pixels<T, kWidth> pixels(p, at, p.kept);

  typename Pixels<T, kWidth>::Loaded loaded[kUnroll];
  const auto load = [&](int first) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (at.active && first + u * at.rows < end) pixels.load(first + u * at.rows, loaded[u]);
    }
  };
  int first = begin + at.row;
  load(first);
  prepare();
  if (!at.active) return;
  A mean[kWidth], scale[kWidth], bias[kWidth], offset[kWidth], slope[kWidth];
  from_slice(constants.mean, at.lane, mean);
  from_slice(constants.scale, at.lane, scale);
  from_slice(constants.bias, at.lane, bias);
  from_slice(constants.offset, at.lane, offset);
  from_slice(constants.slope, at.lane, slope);
#pragma unroll 1
  while (first < end) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int pixel = first + u * at.rows;
      if (pixel >= end) continue;
      A g[kWidth];
      pixels.gradient(loaded[u], g);
      if (p.grad_residual && !p.kept) {
        store(g, p.grad_residual + pixels.image + pixels.offset(pixel));
      }
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const A d = element(loaded[u].x, i) - mean[i];
        const A dz = p.act.gradient(g[i], d * scale[i] + bias[i]);
        g[i] = scale[i] * dz + (offset[i] + slope[i] * d);
      }
      store(g, p.grad_x + pixels.image + pixels.offset(pixel));
    }
    first += kUnroll * at.rows;
    if (first < end) load(first);
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, 2)
    nhwc_grad_kernel(const __grid_constant__ Calls<BackwardArguments<T>> calls) {
  const BackwardArguments<T>& p = calls.of[blockIdx.y];
  __shared__ SliceConstants<Accumulator<T>> constants;
  // Backwards: what the first launch read last is still in the cache.
  const NhwcPlace<kWidth> at(p.grid, gridDim.x - 1 - blockIdx.x);
  write_gradient(p, at, constants, [&] { combine_sums(p, at, constants); });
}

// Both in one launch, where a block has all pixels of its slice.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, 2)
    nhwc_resident_backward_kernel(const __grid_constant__ Calls<BackwardArguments<T>> calls) {
  const BackwardArguments<T>& p = calls.of[blockIdx.y];
  using A = Accumulator<T>;
  __shared__ SliceConstants<A> constants;
  const NhwcPlace<kWidth> at(p.grid, blockIdx.x);
  A s1 = 0, s2 = 0;
  chunk_sums(p, at, s1, s2);
  const int c = threadIdx.x;
  if (c < at.slice_width(p.grid)) finish_sums(p, at, c, s1, s2, constants);
  __syncthreads();
  // A thread has the same pixels in both: what it reads of grad_residual it has written itself.
  write_gradient(p, at, constants, [] {});
}

template <typename T>
BackwardArguments<T> arguments_of(const InstanceNormActBwdParams& p, const NhwcGrid& grid) {
  using A = Accumulator<T>;
  const bool own = p.partial.data == nullptr;
  return {
      grid,
      Activation<A>(p),
      static_cast<const T*>(p.x),
      static_cast<const A*>(p.weight),
      static_cast<const A*>(p.bias),
      static_cast<A*>(p.workspace),
      static_cast<const A*>(own ? p.workspace : p.partial.data),
      own ? grid.chunk_count : static_cast<int>(p.partial.chunks),
      own,
      static_cast<const T*>(p.grad_y),
      p.grad_skip,
      static_cast<const A*>(p.mean),
      static_cast<const A*>(p.rstd),
      static_cast<T*>(p.grad_x),
      static_cast<T*>(p.grad_residual),
      static_cast<A*>(p.sums),
      p.n * p.c,
  };
}

template <typename T, int kWidth>
cudaError_t run(const InstanceNormActBwdParams* p, int count, cudaStream_t stream) {
  const bool own = p->partial.data == nullptr;
  const bool resident = own && is_resident(p->n, p->c, p->h * p->w);
  const NhwcGrid grid(*p, kWidth, resident);
  const Calls<BackwardArguments<T>> calls{arguments_of<T>(p[0], grid),
                                          arguments_of<T>(p[count - 1], grid)};
  const dim3 blocks(grid.blocks(p->n), count);
  if (blocks.x == 0) return cudaErrorInvalidConfiguration;
  if (resident) {
    return launch(nhwc_resident_backward_kernel<T, kWidth>, blocks, kThreads, 0, stream, calls);
  }
  if (own) {
    const cudaError_t error =
        launch(nhwc_sums_kernel<T, kWidth>, blocks, kThreads, 0, stream, calls);
    if (error != cudaSuccess) return error;
  }
  return launch(nhwc_grad_kernel<T, kWidth>, blocks, kThreads, 0, stream, calls);
}

template <typename T>
bool is_wide(const InstanceNormActBwdParams& p) {
  bool wide = p.c % kWidest<T> == 0 && has_vector_channels<T>(p.grad_skip, kWidest<T>);
  for (const void* tensor : {p.x, p.grad_y, static_cast<const void*>(p.grad_x),
                             static_cast<const void*>(p.grad_residual)}) {
    wide = wide && aligned(tensor, 16);
  }
  return wide;
}

}  // namespace

cudaError_t instance_norm_act_bwd_nhwc(const InstanceNormActBwdParams* p, int count,
                                       cudaStream_t stream) {
  return with_type(p->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool wide = std::all_of(p, p + count, is_wide<T>);
    return wide ? run<T, kWidest<T>>(p, count, stream) : run<T, 1>(p, count, stream);
  });
}

}  // namespace cyclegan_fast
