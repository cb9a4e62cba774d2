// SPDX-License-Identifier: MIT
// What the backward of instance_norm_act in channels_last is called with, and how it gathers the
// gradient that reaches a pixel.
#pragma once

#include "common/fold.cuh"
#include "common/strided.cuh"
#include "ops/instance_norm_act_activation.cuh"
#include "ops/instance_norm_act_nhwc.cuh"

namespace cyclegan_fast {

template <typename T>
struct BackwardArguments {
  using A = Accumulator<T>;
  NhwcGrid grid;
  Activation<A> act;
  const T* x;
  const A *weight, *bias;
  A* workspace;
  // What combine_sums reads: the workspace, or what the convolution has left.
  const A* partial;
  int partials;
  bool kept;  // the first launch has left g in grad_residual, where there is one
  const T* grad_y;
  Strided grad_skip;
  const A *mean, *rstd;
  T *grad_x, *grad_residual;
  A* sums;
  int64_t planes;
};

// Walks this thread's pixels of a chunk, and gathers the gradient that reaches the sum of
// activation and residual: g = fold(grad_y) + grad_skip.
template <typename T, int kWidth>
struct Pixels {
  using A = Accumulator<T>;
  struct Loaded {
    Vector<T, kWidth> x, own, skip;
    int h, w;
  };

  const BackwardArguments<T>& p;
  const NhwcPlace<kWidth>& at;
  const T *x, *grad_y, *skip;
  const T* kept;  // g, rounded, where it is read from
  int64_t image;

  __device__ Pixels(const BackwardArguments<T>& arguments, const NhwcPlace<kWidth>& place,
                    bool use_kept)
      : p(arguments), at(place) {
    const int64_t channels = p.grid.channels;
    image = static_cast<int64_t>(at.n) * p.grid.pixels * channels + at.channel;
    x = p.x + image;
    kept = use_kept && p.grad_residual ? p.grad_residual + image : nullptr;
    grad_y =
        p.grad_y && !kept
            ? p.grad_y + static_cast<int64_t>(at.n) * p.grid.padded_pixels * channels + at.channel
            : nullptr;
    skip = p.grad_skip.data && !kept ? static_cast<const T*>(p.grad_skip.data) +
                                           at.n * p.grad_skip.n + at.channel * p.grad_skip.c
                                     : nullptr;
  }
  __device__ int64_t offset(int pixel) const {
    return static_cast<int64_t>(pixel) * p.grid.channels;
  }
  __device__ int64_t padded_row() const {
    return static_cast<int64_t>(p.grid.width + 2 * p.grid.pad) * p.grid.channels;
  }
  __device__ void load(int pixel, Loaded& to) const {
    to.x = load_vector<T, kWidth>(x + offset(pixel));
    if (kept) {
      to.own = load_vector<T, kWidth>(kept + offset(pixel));
      return;
    }
    to.h = static_cast<int>(p.grid.row.quotient(pixel));
    to.w = pixel - to.h * p.grid.width;
    if (grad_y) {
      to.own = load_vector<T, kWidth>(grad_y + (to.h + p.grid.pad) * padded_row() +
                                      offset(to.w + p.grid.pad));
    }
    if (skip) {
      to.skip = load_vector<T, kWidth>(skip + to.h * p.grad_skip.h + to.w * p.grad_skip.w);
    }
  }
  __device__ void gradient(const Loaded& from, A (&g)[kWidth]) const {
    if (kept || grad_y) {
      unpack(from.own, g);
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) g[i] = 0;
    }
    if (grad_y && p.grid.pad > 0) {
      add_mirrors(grad_y, padded_row(), p.grid.channels, mirrors(from.h, p.grid.pad, p.grid.height),
                  mirrors(from.w, p.grid.pad, p.grid.width), g);
    }
    if (skip) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) g[i] += element(from.skip, i);
    }
  }
};

}  // namespace cyclegan_fast
