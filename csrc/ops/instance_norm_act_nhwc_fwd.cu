// SPDX-License-Identifier: MIT
// instance_norm_act forward, channels_last: statistics by chunk, then combine and write; or both in
// one launch.
#include "common/dispatch.cuh"
#include "common/launch.cuh"
#include "common/strided.cuh"
#include "ops/instance_norm_act_activation.cuh"
#include "ops/instance_norm_act_nhwc.cuh"

namespace cyclegan_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
// Independent pixels in flight per thread; three blocks per multiprocessor without a spill.
constexpr int kMomentsUnroll = 4, kWriteUnroll = 2;
template <typename T>
constexpr int kResident = sizeof(T) == 8 ? 2 : 3;

template <typename T>
struct ForwardArguments {
  using A = Accumulator<T>;
  NhwcGrid grid;
  Activation<A> act;
  A eps;
  const T* x;
  const A *weight, *bias;
  A* workspace;
  // What combine_moments reads: the workspace, or what the convolution has left.
  const A* partial;
  int partials, each, pitch;
  bool own;  // means are those of x - x[pixel 0]; else before each stands what it has taken off
  Strided residual;
  bool given;  // mean and rstd are there already
  T* y;
  A *mean, *rstd;
};

// Moments of x - x[pixel 0] over this block's chunk: for channel threadIdx.x of the slice, where
// there is one. Taking a pixel off first keeps every partial mean small, so that the merged one is
// exact to its last bit even far from zero.
template <typename T, int kWidth>
__device__ inline void chunk_moments(const ForwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                     Accumulator<T>& chunk_mean, Accumulator<T>& squares) {
  using A = Accumulator<T>;
  __shared__ A shared_mean[kWarps][kMaxSlice], shared_m2[kWarps][kMaxSlice], shared_count[kWarps];
  const int begin = at.chunk * p.grid.chunk;
  const int count = min(p.grid.chunk, p.grid.pixels - begin);
  const T* image = p.x + static_cast<int64_t>(at.n) * p.grid.pixels * p.grid.channels + at.channel;

  A mean[kWidth] = {}, m2[kWidth] = {}, counted = 0;
  if (at.active) {
    A origin[kWidth];
    unpack(load_vector<T, kWidth>(image), origin);
    const int64_t stride = static_cast<int64_t>(at.rows) * p.grid.channels;
    const T* next = image + static_cast<int64_t>(begin + at.row) * p.grid.channels;
    for (int left = (count - at.row + at.rows - 1) / at.rows; left > 0; left -= kMomentsUnroll) {
      Vector<T, kWidth> loaded[kMomentsUnroll] = {};
#pragma unroll
      for (int u = 0; u < kMomentsUnroll; ++u) {
        if (u < left) loaded[u] = load_vector<T, kWidth>(next + u * stride);
      }
      next += kMomentsUnroll * stride;
      const A fresh = static_cast<A>(min(left, kMomentsUnroll)), inverse_fresh = A(1) / fresh;
      const MergeWeights<A> weights(counted, fresh);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        A value[kMomentsUnroll];
#pragma unroll
        for (int u = 0; u < kMomentsUnroll; ++u) {
          value[u] = element(loaded[u], i) - origin[i];
        }
        merge_values(mean[i], m2[i], value, left, inverse_fresh, weights);
      }
      counted += fresh;
    }
  }

  for (int offset = 1 << p.grid.lane_bits; offset < 32; offset <<= 1) {
    const A theirs = __shfl_xor_sync(kFullWarp, counted, offset);
    const MergeWeights<A> weights(counted, theirs);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const A their_mean = __shfl_xor_sync(kFullWarp, mean[i], offset);
      const A their_m2 = __shfl_xor_sync(kFullWarp, m2[i], offset);
      merge_moments(mean[i], m2[i], their_mean, their_m2, weights);
    }
    counted += theirs;
  }
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 < (1u << p.grid.lane_bits)) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      shared_mean[warp][at.lane * kWidth + i] = mean[i];
      shared_m2[warp][at.lane * kWidth + i] = m2[i];
    }
    if (at.lane == 0) shared_count[warp] = counted;
  }
  __syncthreads();

  const int c = threadIdx.x;
  if (c < at.slice_width(p.grid)) {
    A total = 0;
    squares = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += shared_count[w] * shared_mean[w][c];
    chunk_mean = total / static_cast<A>(count);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const A d = shared_mean[w][c] - chunk_mean;
      squares += shared_m2[w][c] + shared_count[w] * d * d;
    }
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident<T>)
    nhwc_moments_kernel(const __grid_constant__ Calls<ForwardArguments<T>> calls) {
  const ForwardArguments<T>& p = calls.of[blockIdx.y];
  using A = Accumulator<T>;
  const NhwcPlace<kWidth> at(p.grid, blockIdx.x);
  A chunk_mean = 0, squares = 0;
  chunk_moments(p, at, chunk_mean, squares);
  const int c = threadIdx.x;
  if (c < at.slice_width(p.grid)) {
    A* partial = p.workspace + at.partial(p.grid, at.chunk, at.first_channel + c);
    partial[0] = chunk_mean;
    partial[p.grid.channels] = squares;
  }
}

// What writing takes of a slice's channels: z = (x - mean) * scale + bias.
template <typename A>
struct SliceConstants {
  A mean[kMaxSlice], scale[kMaxSlice], bias[kMaxSlice];
};

// From the moments of all pixels of channel c of the slice; one block of them writes them out.
template <typename T, int kWidth>
__device__ inline void finish_moments(const ForwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                      int c, Accumulator<T> mean, Accumulator<T> squares,
                                      SliceConstants<Accumulator<T>>& constants) {
  using A = Accumulator<T>;
  const int channel = at.first_channel + c;
  const A rstd = reciprocal_root(squares / static_cast<A>(p.grid.pixels) + p.eps);
  constants.mean[c] = mean;
  constants.scale[c] = p.weight ? rstd * p.weight[channel] : rstd;
  constants.bias[c] = p.bias ? p.bias[channel] : A(0);
  if (at.chunk == 0) {
    p.mean[at.statistic(p.grid, channel)] = constants.mean[c];
    p.rstd[at.statistic(p.grid, channel)] = rstd;
  }
}

// Pixel 0 of channel c of the slice.
template <typename T, int kWidth>
__device__ inline Accumulator<T> first_pixel(const ForwardArguments<T>& p,
                                             const NhwcPlace<kWidth>& at, int c) {
  const int64_t image = static_cast<int64_t>(at.n) * p.grid.pixels * p.grid.channels;
  return static_cast<Accumulator<T>>(p.x[image + at.first_channel + c]);
}

// Pixels of an image before a position, rows being `pitch` positions long.
template <typename T>
__device__ inline int pixels_before(const ForwardArguments<T>& p, int position) {
  const int within = min(position, p.grid.height * p.pitch), row = within / p.pitch;
  return row * p.grid.width + min(within - row * p.pitch, p.grid.width);
}

// From the moments of the slice's chunks.
template <typename T, int kWidth>
__device__ inline void combine_moments(const ForwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                       SliceConstants<Accumulator<T>>& constants) {
  using A = Accumulator<T>;
  __shared__ A shared[2][kWarps][kMaxSlice];
  const int warp = threadIdx.x / 32, c = threadIdx.x % 32, channel = at.first_channel + c;
  const bool active = c < at.slice_width(p.grid);
  const int64_t stride = (p.own ? 2 : 3) * static_cast<int64_t>(p.grid.channels);
  const A* origins = p.partial + stride * p.partials * at.n + channel;
  const A* partial = p.own ? origins : origins + p.grid.channels;
  const auto size = [&](int chunk) {
    return static_cast<A>(pixels_before(p, (chunk + 1) * p.each) -
                          pixels_before(p, chunk * p.each));
  };
  // Where each chunk has taken off a pixel of its own, differences of pixels are exact.
  const A origin = active && !p.own ? origins[0] : A(0);
  const auto mean_of = [&](int chunk) {
    const A mean = partial[chunk * stride];
    return p.own ? mean : origins[chunk * stride] - origin + mean;
  };

  A total = 0;
  for (int chunk = warp; active && chunk < p.partials; chunk += kWarps) {
    total += size(chunk) * mean_of(chunk);
  }
  shared[0][warp][c] = total;
  __syncthreads();
  total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += shared[0][w][c];
  const A mean = total / static_cast<A>(p.grid.pixels);
  A squares = 0;
  for (int chunk = warp; active && chunk < p.partials; chunk += kWarps) {
    const A d = mean_of(chunk) - mean;
    squares += partial[chunk * stride + p.grid.channels] + size(chunk) * d * d;
  }
  shared[1][warp][c] = squares;
  __syncthreads();
  if (warp == 0 && active) {
    squares = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) squares += shared[1][w][c];
    finish_moments(p, at, c, mean + (p.own ? first_pixel(p, at, c) : origin), squares, constants);
  }
  __syncthreads();
}

// The same where mean and rstd have been taken elsewhere.
template <typename T, int kWidth>
__device__ inline void given_moments(const ForwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                     SliceConstants<Accumulator<T>>& constants) {
  using A = Accumulator<T>;
  const int c = threadIdx.x, channel = at.first_channel + c;
  if (c < at.slice_width(p.grid)) {
    const A rstd = p.rstd[at.statistic(p.grid, channel)];
    constants.mean[c] = p.mean[at.statistic(p.grid, channel)];
    constants.scale[c] = p.weight ? rstd * p.weight[channel] : rstd;
    constants.bias[c] = p.bias ? p.bias[channel] : A(0);
  }
  __syncthreads();
}

// Writes the padded pixels of a chunk. prepare() fills the constants for all threads, while the
// first pixels are on their way.
template <typename T, int kWidth, class Prepare>
__device__ inline void write_chunk(const ForwardArguments<T>& p, const NhwcPlace<kWidth>& at,
                                   const SliceConstants<Accumulator<T>>& constants,
                                   const Prepare& prepare) {
  using A = Accumulator<T>;
  const int begin = at.chunk * p.grid.padded_chunk;
  const int end = min(begin + p.grid.padded_chunk, p.grid.padded_pixels);
  const int channels = p.grid.channels, padded_width = p.grid.width + 2 * p.grid.pad;
  const T* image = p.x + static_cast<int64_t>(at.n) * p.grid.pixels * channels + at.channel;
  const T* residual =
      static_cast<const T*>(p.residual.data) + at.n * p.residual.n + at.channel * p.residual.c;
  T* output = p.y + static_cast<int64_t>(at.n) * p.grid.padded_pixels * channels + at.channel;

  Vector<T, kWidth> x[kWriteUnroll], added[kWriteUnroll];
  const auto load = [&](int first) {
#pragma unroll
    for (int u = 0; u < kWriteUnroll; ++u) {
      const int pixel = first + u * at.rows;
      if (pixel >= end || !at.active) continue;
      const int padded_h = static_cast<int>(p.grid.padded_row.quotient(pixel));
      const int h = reflected(padded_h, p.grid.pad, p.grid.height);
      const int w = reflected(pixel - padded_h * padded_width, p.grid.pad, p.grid.width);
      x[u] = load_vector<T, kWidth>(image + static_cast<int64_t>(h * p.grid.width + w) * channels);
      if (p.residual.data) {
        added[u] = load_vector<T, kWidth>(residual + h * p.residual.h + w * p.residual.w);
      }
    }
  };

  int first = begin + at.row;
  load(first);
  prepare();
  if (!at.active) return;
  A mean[kWidth], scale[kWidth], bias[kWidth];
  from_slice(constants.mean, at.lane, mean);
  from_slice(constants.scale, at.lane, scale);
  from_slice(constants.bias, at.lane, bias);
#pragma unroll 1
  while (first < end) {
#pragma unroll
    for (int u = 0; u < kWriteUnroll; ++u) {
      const int pixel = first + u * at.rows;
      if (pixel >= end) continue;
      A value[kWidth];
      unpack(x[u], value);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) value[i] = p.act((value[i] - mean[i]) * scale[i] + bias[i]);
      if (p.residual.data) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) value[i] += element(added[u], i);
      }
      store(value, output + static_cast<int64_t>(pixel) * channels);
    }
    first += kWriteUnroll * at.rows;
    if (first < end) load(first);
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident<T>)
    nhwc_write_kernel(const __grid_constant__ Calls<ForwardArguments<T>> calls) {
  const ForwardArguments<T>& p = calls.of[blockIdx.y];
  __shared__ SliceConstants<Accumulator<T>> constants;
  // Backwards: what the first launch read last is still in the cache.
  const NhwcPlace<kWidth> at(p.grid, gridDim.x - 1 - blockIdx.x);
  write_chunk(p, at, constants, [&] {
    if (p.given) {
      given_moments(p, at, constants);
    } else {
      combine_moments(p, at, constants);
    }
  });
}

// Both in one launch, where a block has all pixels of its slice.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident<T>)
    nhwc_resident_forward_kernel(const __grid_constant__ Calls<ForwardArguments<T>> calls) {
  const ForwardArguments<T>& p = calls.of[blockIdx.y];
  using A = Accumulator<T>;
  __shared__ SliceConstants<A> constants;
  const NhwcPlace<kWidth> at(p.grid, blockIdx.x);
  A mean = 0, squares = 0;
  chunk_moments(p, at, mean, squares);
  const int c = threadIdx.x;
  if (c < at.slice_width(p.grid)) {
    finish_moments(p, at, c, mean + first_pixel(p, at, c), squares, constants);
  }
  __syncthreads();
  write_chunk(p, at, constants, [] {});
}

template <typename T>
ForwardArguments<T> arguments_of(const InstanceNormActFwdParams& p, const NhwcGrid& grid) {
  using A = Accumulator<T>;
  const bool own = p.moments.data == nullptr;
  return {
      grid,
      Activation<A>(p),
      static_cast<A>(p.eps),
      static_cast<const T*>(p.x),
      static_cast<const A*>(p.weight),
      static_cast<const A*>(p.bias),
      static_cast<A*>(p.workspace),
      static_cast<const A*>(own ? p.workspace : p.moments.data),
      own ? grid.chunk_count : static_cast<int>(p.moments.chunks),
      own ? grid.chunk : static_cast<int>(p.moments.each),
      own ? grid.width : static_cast<int>(p.moments.pitch),
      own,
      p.residual,
      p.given,
      static_cast<T*>(p.y),
      static_cast<A*>(p.mean),
      static_cast<A*>(p.rstd),
  };
}

template <typename T, int kWidth>
cudaError_t run(const InstanceNormActFwdParams* p, int count, cudaStream_t stream) {
  const bool taken = p->given || p->moments.data;  // elsewhere
  const bool resident = !taken && is_resident(p->n, p->c, p->h * p->w);
  const NhwcGrid grid(*p, kWidth, resident);
  const Calls<ForwardArguments<T>> calls{arguments_of<T>(p[0], grid),
                                         arguments_of<T>(p[count - 1], grid)};
  const dim3 blocks(grid.blocks(p->n), count);
  if (blocks.x == 0) return cudaErrorInvalidConfiguration;
  if (resident) {
    return launch(nhwc_resident_forward_kernel<T, kWidth>, blocks, kThreads, 0, stream, calls);
  }
  if (!taken) {
    const cudaError_t error =
        launch(nhwc_moments_kernel<T, kWidth>, blocks, kThreads, 0, stream, calls);
    if (error != cudaSuccess) return error;
  }
  return launch(nhwc_write_kernel<T, kWidth>, blocks, kThreads, 0, stream, calls);
}

template <typename T>
bool is_wide(const InstanceNormActFwdParams& p) {
  return p.c % kWidest<T> == 0 && aligned(p.x, 16) && aligned(p.y, 16) &&
         has_vector_channels<T>(p.residual, kWidest<T>);
}

}  // namespace

cudaError_t instance_norm_act_fwd_nhwc(const InstanceNormActFwdParams* p, int count,
                                       cudaStream_t stream) {
  return with_type(p->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool wide = std::all_of(p, p + count, is_wide<T>);
    return wide ? run<T, kWidest<T>>(p, count, stream) : run<T, 1>(p, count, stream);
  });
}

}  // namespace cyclegan_fast
