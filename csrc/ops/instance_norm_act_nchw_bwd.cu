// SPDX-License-Identifier: MIT
// instance_norm_act backward, NCHW: one launch, each plane is read for its sums and again, mostly
// from the cache, for its gradient. The formula stands in instance_norm_act_nhwc_bwd.cu.
#include "common/dispatch.cuh"
#include "common/fold.cuh"
#include "common/launch.cuh"
#include "common/strided.cuh"
#include "ops/instance_norm_act_activation.cuh"
#include "ops/instance_norm_act_nchw.cuh"

namespace cyclegan_fast {
namespace {

template <typename T>
struct BackwardArguments {
  using A = Accumulator<T>;
  NchwGrid grid;
  Activation<A> act;
  const T* x;
  const A *weight, *bias;
  const T* grad_y;
  Strided grad_skip;
  const A *mean, *rstd;
  T *grad_x, *grad_residual;
  A* sums;
};

// kWidth > 1 only where nothing is padded and planes of grad_skip are contiguous.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kPlaneThreads, 1)
    nchw_backward_kernel(const BackwardArguments<T> p) {
  using A = Accumulator<T>;
  __shared__ A shared[kPlaneWarps];
  const int64_t plane = plane_of_thread();
  const bool active = plane < p.grid.planes;
  const int pixels = active ? p.grid.pixels : 0;
  const int first = threadIdx.x * kWidth, step = blockDim.x * kWidth;
  const int n = active ? static_cast<int>(p.grid.channels_divider.quotient(plane)) : 0;
  const int channel = active ? static_cast<int>(plane) - n * p.grid.channels : 0;
  const A mean = active ? p.mean[plane] : A(0), rstd = active ? p.rstd[plane] : A(0);
  const A scale = p.weight ? rstd * p.weight[channel] : rstd;
  const A bias = p.bias ? p.bias[channel] : A(0);
  const T* x = p.x + plane * p.grid.pixels;
  const T* grad_y = p.grad_y ? p.grad_y + plane * p.grid.padded_pixels : nullptr;
  const T* skip = static_cast<const T*>(p.grad_skip.data);
  if (skip) skip += n * p.grad_skip.n + channel * p.grad_skip.c;
  T* grad_residual = p.grad_residual ? p.grad_residual + plane * p.grid.pixels : nullptr;

  const auto gradient = [&](int at, A(&g)[kWidth]) {
    if constexpr (kWidth > 1) {
      if (grad_y) {
        unpack(load_vector<T, kWidth>(grad_y + at), g);
      } else {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) g[i] = 0;
      }
      if (skip) {
        const auto added = load_vector<T, kWidth>(skip + at);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) g[i] += element(added, i);
      }
    } else {
      const int h = static_cast<int>(p.grid.row.quotient(at)), w = at - h * p.grid.width;
      const int pad = p.grid.pad, padded_width = p.grid.width + 2 * pad;
      g[0] = grad_y ? static_cast<A>(grad_y[(h + pad) * padded_width + w + pad]) : A(0);
      if (grad_y && pad > 0) {
        add_mirrors(grad_y, padded_width, 1, mirrors(h, pad, p.grid.height),
                    mirrors(w, pad, p.grid.width), g);
      }
      if (skip) g[0] += static_cast<A>(skip[h * p.grad_skip.h + w * p.grad_skip.w]);
    }
  };

  A s1 = 0, s2 = 0;
#pragma unroll 2
  for (int at = first; at < pixels; at += step) {
    A g[kWidth], d[kWidth];
    gradient(at, g);
    unpack(load_vector<T, kWidth>(x + at), d);
    if (grad_residual) store(g, grad_residual + at);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      d[i] -= mean;
      const A dz = p.act.gradient(g[i], d[i] * scale + bias);
      s1 += dz;
      s2 += dz * d[i];
    }
  }
  s1 = block_sum(s1, shared);
  s2 = block_sum(s2, shared) * rstd;
  if (active && threadIdx.x == 0) {
    p.sums[plane] = s1;
    p.sums[p.grid.planes + plane] = s2;
  }
  const A offset = -scale * (s1 / static_cast<A>(p.grid.pixels));
  const A slope = -scale * rstd * (s2 / static_cast<A>(p.grid.pixels));
  T* grad_x = p.grad_x + plane * p.grid.pixels;
#pragma unroll 2
  for (int at = first; at < pixels; at += step) {
    A g[kWidth], d[kWidth];
    if (grad_residual) {
      unpack(load_vector<T, kWidth>(grad_residual + at), g);
    } else {
      gradient(at, g);
    }
    unpack(load_vector<T, kWidth>(x + at), d);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      d[i] -= mean;
      const A dz = p.act.gradient(g[i], d[i] * scale + bias);
      g[i] = scale * dz + (offset + slope * d[i]);
    }
    store(g, grad_x + at);
  }
}

template <typename T, int kWidth>
cudaError_t run(const InstanceNormActBwdParams& p, cudaStream_t stream) {
  using A = Accumulator<T>;
  const NchwGrid grid(p);
  const BackwardArguments<T> arguments{
      grid,
      Activation<A>(p),
      static_cast<const T*>(p.x),
      static_cast<const A*>(p.weight),
      static_cast<const A*>(p.bias),
      static_cast<const T*>(p.grad_y),
      p.grad_skip,
      static_cast<const A*>(p.mean),
      static_cast<const A*>(p.rstd),
      static_cast<T*>(p.grad_x),
      static_cast<T*>(p.grad_residual),
      static_cast<A*>(p.sums),
  };
  if (grid.blocks() == 0) return cudaErrorInvalidConfiguration;
  return launch(nchw_backward_kernel<T, kWidth>, grid.blocks(), grid.threads(), 0, stream,
                arguments);
}

}  // namespace

cudaError_t instance_norm_act_bwd_nchw(const InstanceNormActBwdParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = kWidest<T>;
    bool wide =
        p.pad == 0 && p.h * p.w % kWidth == 0 && has_flat_planes<T>(p.grad_skip, p.w, kWidth);
    for (const void* tensor : {p.x, p.grad_y, static_cast<const void*>(p.grad_x),
                               static_cast<const void*>(p.grad_residual)}) {
      wide = wide && aligned(tensor, 16);
    }
    return wide ? run<T, kWidth>(p, stream) : run<T, 1>(p, stream);
  });
}

}  // namespace cyclegan_fast
