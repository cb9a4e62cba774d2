// SPDX-License-Identifier: MIT
// Element types, their accumulators, and accesses of up to 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace cyclegan_fast {

using half = __half;
using bfloat16 = __nv_bfloat16;

// Statistics and sums: float, and double for double.
template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

// Elements in the widest access that the hardware has.
template <typename T>
constexpr int kWidest = 16 / static_cast<int>(sizeof(T));

// A number of neighbours as a type, for a function that is called with several.
template <int kCount>
struct Lanes {
  static constexpr int kLanes = kCount;
};

// kWidth neighbours in memory; one load or store instruction.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T lane[kWidth];
};

template <typename T, int kWidth>
__device__ inline Vector<T, kWidth> load_vector(const T* p) {
  return *reinterpret_cast<const Vector<T, kWidth>*>(p);
}

// Element i as accumulators see it. bfloat16 is the upper half of a float: taken from its 32-bit
// word, since to split words into halves first costs twice the registers.
template <int kWidth, typename T>
__device__ inline Accumulator<T> element(const Vector<T, kWidth>& from, int i) {
  if constexpr (kWidth % 2 == 0 && std::is_same_v<T, bfloat16>) {
    uint32_t word;
    memcpy(&word, &from.lane[i & ~1], sizeof(word));
    word = i & 1 ? word & 0xffff0000u : word << 16;
    float value;
    memcpy(&value, &word, sizeof(value));
    return value;
  } else {
    return static_cast<Accumulator<T>>(from.lane[i]);
  }
}

template <int kWidth, typename T>
__device__ inline void unpack(const Vector<T, kWidth>& from, Accumulator<T> (&to)[kWidth]) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) to[i] = element(from, i);
}

template <typename T>
__device__ inline T rounded(Accumulator<T> value) {
  return static_cast<T>(value);
}

// Pairs are converted together: one instruction on sm_80 and later.
__device__ inline void round_pair(const float* from, half* to) {
  const __half2 pair = __floats2half2_rn(from[0], from[1]);
  to[0] = __low2half(pair);
  to[1] = __high2half(pair);
}
__device__ inline void round_pair(const float* from, bfloat16* to) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(from[0], from[1]);
  to[0] = __low2bfloat16(pair);
  to[1] = __high2bfloat16(pair);
}

template <int kWidth, typename T>
__device__ inline Vector<T, kWidth> pack(const Accumulator<T> (&from)[kWidth]) {
  Vector<T, kWidth> to;
  if constexpr (sizeof(T) == 2 && kWidth % 2 == 0) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 2) round_pair(from + i, to.lane + i);
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to.lane[i] = rounded<T>(from[i]);
  }
  return to;
}

template <int kWidth, typename T>
__device__ inline void store_vector(const Vector<T, kWidth>& from, T* p) {
  *reinterpret_cast<Vector<T, kWidth>*>(p) = from;
}

template <int kWidth, typename T>
__device__ inline void store(const Accumulator<T> (&from)[kWidth], T* p) {
  store_vector(pack<kWidth, T>(from), p);
}

// Whether accesses of `bytes` at p are aligned.
inline bool aligned(const void* p, int bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

}  // namespace cyclegan_fast
