// SPDX-License-Identifier: MIT
// The warps that bring operands: filters by the tensor memory accelerator, a tap at a time, and
// images by ordinary loads, a pixel once for all nine taps.
#pragma once

#include "common/vector.cuh"
#include "ops/reflect_conv2d_hopper.cuh"

namespace cyclegan_fast {

// One thread. Forward a slot is [columns of C_out][64 of C]; of the input's gradient, 64 columns of
// C at a time, [64 of C_out][64 of C]. Rows are 128 bytes, in the accelerator's 128-byte pattern.
template <bool kOfInput, int kColumns, bool kFolded>
__device__ inline void load_filters(const HopperArguments& a, Ring ring) {
  const auto tile = [&](const HopperUnit& u, int first, int last) {
    for (int c = 0; c < a.p.depth; c += kHopperDepth) {
      parts<kFolded>(a, first, last, [&](const HopperPart& part) {
        for (int tap = part.first; tap < part.last; ++tap) {
          ring.wait_until_empty();
          uint64_t* const full = ring.full + ring.at;
          arrive_and_expect(full, ring.bytes);
          if (kOfInput) {
#pragma unroll
            for (int i = 0; i < kColumns / 64; ++i) {
              copy_box(ring.slot() + i * kHopperDepth * 128, &a.filters[u.call], u.column + i * 64,
                       tap, c, full);
            }
          } else {
            copy_box(ring.slot(), &a.filters[u.call], c, tap, u.column, full);
          }
          ring.next();
        }
      });
    }
  };
  walk<kFolded>(a, kColumns, [](const HopperUnit&) {}, tile, [](const HopperUnit&) {});
}

// Which pixel of the image lies `position` behind the first one that a result's taps read; -1:
// none, and zeros take its place. The gradient of a result is read as if two rows and columns of
// zeros were around it: at the pitch of the input those behind a row are those before the next one.
// only: as in HopperPart.
template <bool kOfInput>
__device__ inline int pixel_at(const HopperArguments& a, int position, bool normed, int only) {
  if (!kOfInput && position >= a.p.height * a.p.width) return -1;
  if (!kOfInput && !normed) return position;
  const int u = static_cast<int>(a.row.quotient(static_cast<uint32_t>(position)));
  const int v = position - u * a.p.width;
  if (!kOfInput)
    return reflected(u, 1, a.p.height - 2) * (a.p.width - 2) + reflected(v, 1, a.p.width - 2);
  const int i = u - 2, j = v - 2;
  if (only >= 0 && i != only) return -1;
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
      const int pixel = pixel_at<false>(a, first + k + i * kStep, true, -1);
      loaded[i] = load_vector<T, kVector>(from + int64_t{max(pixel, 0)} * a.p.depth);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
      if (k + i * kStep < a.pixels) store_16_bytes(norm(loaded[i]), to + (k + i * kStep) * kVector);
  }
}

// The gradient of a norm's input at eight channels, of dz and that input; rounded likewise.
template <typename T>
struct GradientOnLoad {
  static constexpr int kVector = kWidest<T>;
  float mean[kVector], scale[kVector], of_dz[kVector], slope[kVector];

  __device__ GradientOnLoad(const HopperArguments& a, const HopperUnit& u, int channel) {
    const HopperNormBehind& norm = a.p.call[u.call].behind;
    const int64_t at = u.n * a.p.depth + channel;
    const float* const sums = norm.sums + u.n * a.p.depth + at;
    const auto count = static_cast<float>((a.p.height - 2) * (a.p.width - 2));
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      mean[i] = norm.mean[at + i];
      scale[i] = norm.weight ? norm.rstd[at + i] * norm.weight[channel + i] : norm.rstd[at + i];
      of_dz[i] = sums[i] / count;
      slope[i] = norm.rstd[at + i] * (sums[a.p.depth + i] / count);
    }
  }

  __device__ Vector<T, kVector> operator()(const Vector<T, kVector>& dz,
                                           const Vector<T, kVector>& x) const {
    float value[kVector], own[kVector];
    unpack(dz, value);
    unpack(x, own);
#pragma unroll
    for (int i = 0; i < kVector; ++i)
      value[i] = scale[i] * (value[i] - of_dz[i] - (own[i] - mean[i]) * slope[i]);
    return pack<kVector, T>(value);
  }
};

// As load_normed; what is no pixel is zeros.
template <typename T>
__device__ inline void load_graded(const HopperArguments& a, const HopperUnit& u, const T* from,
                                   const T* x, int channel, int first, int only, int k, T* to) {
  constexpr int kVector = kWidest<T>, kStep = kLoaders / 8, kLoads = 3;
  const GradientOnLoad<T> gradient(a, u, channel);
  const float none[kVector] = {};
  for (; k < a.pixels; k += kLoads * kStep) {
    Vector<T, kVector> loaded[kLoads], own[kLoads];
    bool there[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int pixel = pixel_at<true>(a, first + k + i * kStep, false, only);
      const int64_t at = int64_t{max(pixel, 0)} * a.p.depth;
      there[i] = pixel >= 0;
      loaded[i] = load_vector<T, kVector>(from + at);
      own[i] = load_vector<T, kVector>(x + at);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
      if (k + i * kStep < a.pixels)
        store_16_bytes(there[i] ? gradient(loaded[i], own[i]) : pack<kVector, T>(none),
                       to + (k + i * kStep) * kVector);
  }
}

// thread: 0 to kLoaders - 1. Eight neighbours read 128 bytes of one pixel, and write a plane each.
template <typename T, bool kOfInput, bool kMayNorm, bool kFolded>
__device__ inline void load_image(const HopperArguments& a, Ring ring, int thread, int columns) {
  constexpr int kVector = kWidest<T>;
  const int plane = thread % 8;
  const bool normed = kMayNorm && !kOfInput && a.p.normed;
  const bool graded = kMayNorm && kOfInput && a.p.graded;
  const int64_t image = kOfInput || normed ? int64_t{a.p.height - 2} * (a.p.width - 2)
                                           : int64_t{a.p.height} * a.p.width;
  const auto tile = [&](const HopperUnit& u, int position, int last) {
    const HopperCall& call = a.p.call[u.call];
    const int64_t begin = u.n * image * a.p.depth + plane * kVector;
    const T* const from = static_cast<const T*>(call.image) + begin;
    const void* const beside = graded ? call.behind.x : call.own;
    const T* const own = static_cast<const T*>(beside) + (beside ? begin : 0);
    // Folded, positions are counted from the row below the border.
    const int first = position + (kFolded ? a.p.width : 0);
    for (int c = 0; c < a.p.depth; c += kHopperDepth) {
      parts<kFolded>(a, position, last, [&](const HopperPart& part) {
        ring.wait_until_empty();
        T* const to = reinterpret_cast<T*>(ring.slot() + plane * a.shared.plane);
        const int channel = c + plane * kVector;
        if (kMayNorm && normed) load_normed(a, u, from + c, channel, first, thread / 8, to);
        if (kMayNorm && graded)
          load_graded(a, u, from + c, own + c, channel, first, part.only, thread / 8, to);
        for (int k = thread / 8; k < a.pixels && !normed && !graded; k += kLoaders / 8) {
          const int pixel = pixel_at<kOfInput>(a, first + k, false, part.only);
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
      });
    }
  };
  walk<kFolded>(a, columns, [](const HopperUnit&) {}, tile, [](const HopperUnit&) {});
}

}  // namespace cyclegan_fast
