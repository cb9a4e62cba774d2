// SPDX-License-Identifier: MIT
// The warps that bring operands: filters by the tensor memory accelerator, a tap at a time, and
// images by ordinary loads, a pixel once for all nine taps.
#pragma once

#include "common/vector.cuh"
#include "ops/reflect_conv2d_hopper.cuh"

namespace cyclegan_fast {

// One thread. Forward a slot is [columns of C_out][64 of C]; of the input's gradient, 64 columns of
// C at a time, [64 of C_out][64 of C]. Rows are 128 bytes, in the accelerator's 128-byte pattern.
template <bool kOfInput, int kColumns>
__device__ inline void load_filters(const HopperArguments& a, Ring ring) {
  const auto tile = [&](const HopperUnit& u, int) {
    for (int c = 0; c < a.p.depth; c += kHopperDepth) {
      for (int tap = 0; tap < kTaps; ++tap) {
        ring.wait_until_empty();
        uint64_t* const full = ring.full + ring.at;
        arrive_and_expect(full, ring.bytes);
        if (kOfInput) {
#pragma unroll
          for (int part = 0; part < kColumns / 64; ++part) {
            copy_box(ring.slot() + part * kHopperDepth * 128, &a.filters[u.call],
                     u.column + part * 64, tap, c, full);
          }
        } else {
          copy_box(ring.slot(), &a.filters[u.call], c, tap, u.column, full);
        }
        ring.next();
      }
    }
  };
  walk(a, kColumns, [](const HopperUnit&) {}, tile, [](const HopperUnit&) {});
}

// Which pixel of the image lies `position` behind the first one that a result's taps read; -1:
// none, and zeros take its place. The gradient of a result is read as if two rows and columns of
// zeros were around it: at the pitch of the input those behind a row are those before the next one.
template <bool kOfInput>
__device__ inline int pixel_at(const HopperArguments& a, int position, bool normed) {
  if (!kOfInput && position >= a.p.height * a.p.width) return -1;
  if (!kOfInput && !normed) return position;
  const int u = static_cast<int>(a.row.quotient(static_cast<uint32_t>(position)));
  const int v = position - u * a.p.width;
  if (!kOfInput)
    return reflected(u, 1, a.p.height - 2) * (a.p.width - 2) + reflected(v, 1, a.p.width - 2);
  const int i = u - 2, j = v - 2;
  return i >= 0 && i < a.p.height - 2 && j >= 0 ? i * (a.p.width - 2) + j : -1;
}

// What the gradient of tanh's result becomes before it, as PyTorch rounds it.
template <typename T>
__device__ inline Vector<T, kWidest<T>> times_derivative(const T* grad, const T* y) {
  float g[kWidest<T>], own[kWidest<T>];
  unpack(load_vector<T, kWidest<T>>(grad), g);
  unpack(load_vector<T, kWidest<T>>(y), own);
#pragma unroll
  for (int i = 0; i < kWidest<T>; ++i) g[i] *= 1 - own[i] * own[i];
  return pack<kWidest<T>, T>(g);
}

// A norm's results at eight channels, rounded as instance_norm_act does.
template <typename T>
struct NormOnLoad {
  static constexpr int kVector = kWidest<T>;
  const Activation<float>& act;
  float mean[kVector], scale[kVector], bias[kVector];

  __device__ NormOnLoad(const HopperArguments& a, const HopperUnit& u, int channel) : act(a.act) {
    const HopperNorm& norm = a.p.call[u.call].norm;
    const int64_t at = u.n * a.p.depth + channel;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      mean[i] = norm.mean[at + i];
      scale[i] = norm.weight ? norm.rstd[at + i] * norm.weight[channel + i] : norm.rstd[at + i];
      bias[i] = norm.bias ? norm.bias[channel + i] : 0;
    }
  }

  __device__ Vector<T, kVector> operator()(const Vector<T, kVector>& x) const {
    float value[kVector];
    unpack(x, value);
#pragma unroll
    for (int i = 0; i < kVector; ++i) value[i] = act((value[i] - mean[i]) * scale[i] + bias[i]);
    return pack<kVector, T>(value);
  }
};

// Pixels k, k + kLoaders / 8, ... of a plane, each once for nine taps; several loads are under way.
template <typename T>
__device__ inline void load_normed(const HopperArguments& a, const HopperUnit& u, const T* from,
                                   int channel, int first, int k, T* to) {
  constexpr int kVector = kWidest<T>, kStep = kLoaders / 8, kLoads = 8;
  const NormOnLoad<T> norm(a, u, channel);
  for (; k < a.pixels; k += kLoads * kStep) {
    Vector<T, kVector> loaded[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int pixel = pixel_at<false>(a, first + k + i * kStep, true);
      loaded[i] = load_vector<T, kVector>(from + int64_t{max(pixel, 0)} * a.p.depth);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
      if (k + i * kStep < a.pixels) store_16_bytes(norm(loaded[i]), to + (k + i * kStep) * kVector);
  }
}

// thread: 0 to kLoaders - 1. Eight neighbours read 128 bytes of one pixel, and write a plane each.
template <typename T, bool kOfInput, bool kMayNorm>
__device__ inline void load_image(const HopperArguments& a, Ring ring, int thread, int columns) {
  constexpr int kVector = kWidest<T>;
  const int plane = thread % 8;
  const bool normed = kMayNorm && a.p.normed;
  const int64_t image = kOfInput || normed ? int64_t{a.p.height - 2} * (a.p.width - 2)
                                           : int64_t{a.p.height} * a.p.width;
  const auto tile = [&](const HopperUnit& u, int first) {
    const HopperCall& call = a.p.call[u.call];
    const int64_t begin = u.n * image * a.p.depth + plane * kVector;
    const T* const from = static_cast<const T*>(call.image) + begin;
    const T* const own = static_cast<const T*>(call.own) + (call.own ? begin : 0);
    for (int c = 0; c < a.p.depth; c += kHopperDepth) {
      ring.wait_until_empty();
      T* const to = reinterpret_cast<T*>(ring.slot() + plane * a.shared.plane);
      if (kMayNorm && normed)
        load_normed(a, u, from + c, c + plane * kVector, first, thread / 8, to);
      for (int k = thread / 8; k < a.pixels && !normed; k += kLoaders / 8) {
        const int pixel = pixel_at<kOfInput>(a, first + k, false);
        const int64_t at = int64_t{max(pixel, 0)} * a.p.depth + c;
        if (kOfInput && call.own && pixel >= 0) {
          store_16_bytes(times_derivative(from + at, own + at), to + k * kVector);
        } else {
          copy_16_bytes(to + k * kVector, from + at, pixel >= 0);
        }
      }
      wait_for_copies();
      publish_to_products();
      arrive(ring.full + ring.at);
      ring.next();
    }
  };
  walk(a, columns, [](const HopperUnit&) {}, tile, [](const HopperUnit&) {});
}

}  // namespace cyclegan_fast
