// SPDX-License-Identifier: MIT
// Vectors of the instruction set that the including unit is compiled for, over the compiler's own
// vector types, so that one source serves every processor.
//
// Everything here is in an anonymous namespace on purpose: the kernels are compiled several times
// with different flags, and the linker must never merge the AVX-512 copy of an inline function into
// the unit that a plain processor runs. For the same reason no std:: template is used in a kernel.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "common/dtype.h"

#define CYCLEGAN_FAST_INLINE inline __attribute__((always_inline))

namespace cyclegan_fast {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Storage only; arithmetic is done in the accumulator.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Acc = typename AccumulatorOf<T>::type;

typedef float FloatVec __attribute__((vector_size(kVectorBytes)));
typedef double DoubleVec __attribute__((vector_size(kVectorBytes)));
typedef uint32_t WordVec __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfWordVec __attribute__((vector_size(kVectorBytes / 2)));

template <class A>
struct VecOf {
  using type = FloatVec;
};
template <>
struct VecOf<double> {
  using type = DoubleVec;
};
// The vector in which elements of type T are computed with.
template <class T>
using Vec = typename VecOf<Acc<T>>::type;

template <class T>
constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(Acc<T>));

template <class To, class From>
CYCLEGAN_FAST_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <class A>
CYCLEGAN_FAST_INLINE typename VecOf<A>::type broadcast(A value) {
  return value - typename VecOf<A>::type{};  // x - 0 is x, -0 included
}

// Between words and half words: the instruction where the compiler's own choice (g++ 12) is longer.
#ifdef __AVX512F__
constexpr uint16_t kAll = 0xffff;  // the forms without a mask make g++ 12 warn
#endif

CYCLEGAN_FAST_INLINE WordVec to_words(HalfWordVec half) {
#if defined(__AVX512F__)
  return bit_cast<WordVec>(_mm512_maskz_cvtepu16_epi32(kAll, bit_cast<__m256i>(half)));
#elif defined(__AVX2__)
  return bit_cast<WordVec>(_mm256_cvtepu16_epi32(bit_cast<__m128i>(half)));
#else
  return __builtin_convertvector(half, WordVec);
#endif
}

CYCLEGAN_FAST_INLINE HalfWordVec to_half_words(WordVec words) {
#if defined(__AVX512F__)
  return bit_cast<HalfWordVec>(_mm512_maskz_cvtepi32_epi16(kAll, bit_cast<__m512i>(words)));
#else
  return __builtin_convertvector(words, HalfWordVec);
#endif
}

// float16 -> float32. Shifted into place, a half is a float whose exponent is 112 too small;
// the product corrects it and is exact for subnormals too.
CYCLEGAN_FAST_INLINE FloatVec widen(HalfWordVec half_bits, Half) {
#if defined(__AVX512F__)
  return bit_cast<FloatVec>(_mm512_maskz_cvtph_ps(kAll, bit_cast<__m256i>(half_bits)));
#elif defined(__F16C__)
  return bit_cast<FloatVec>(_mm256_cvtph_ps(bit_cast<__m128i>(half_bits)));
#else
  const WordVec bits = to_words(half_bits);
  const FloatVec magnitude = bit_cast<FloatVec>((bits & 0x7fff) << 13) * 0x1p112f;
  const WordVec special = (bits & 0x7c00) == 0x7c00 ? WordVec{} + 0x7f800000u : WordVec{};
  return bit_cast<FloatVec>(bit_cast<WordVec>(magnitude) | special | (bits & 0x8000) << 16);
#endif
}

CYCLEGAN_FAST_INLINE FloatVec widen(HalfWordVec bits, BFloat16) {
  return bit_cast<FloatVec>(to_words(bits) << 16);
}

// float32 -> float16, to nearest even.
CYCLEGAN_FAST_INLINE HalfWordVec narrow(FloatVec value, Half) {
#if defined(__AVX512F__)
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return bit_cast<HalfWordVec>(_mm512_maskz_cvtps_ph(kAll, bit_cast<__m512>(value), kNearest));
#elif defined(__F16C__)
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return bit_cast<HalfWordVec>(_mm256_cvtps_ph(bit_cast<__m256>(value), kNearest));
#else
  const WordVec bits = bit_cast<WordVec>(value), magnitude = bits & 0x7fffffff;
  // Normal: round the mantissa in place, then lower the exponent. Subnormal: adding 0.5 lets the
  // addition itself round to a multiple of 2^-24.
  const WordVec normal = ((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13) - (112 << 10);
  const WordVec subnormal =
      bit_cast<WordVec>(bit_cast<FloatVec>(magnitude) + 0.5f) - bit_cast<uint32_t>(0.5f);
  WordVec half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? WordVec{} + 0x7c00u : half;  // 65520 and above: infinite
  half = magnitude > 0x7f800000u ? WordVec{} + 0x7e00u : half;   // NaN stays NaN
  return to_half_words(half | (bits >> 16 & 0x8000));
#endif
}

// float32 -> bfloat16, to nearest even; a NaN must not be rounded into an infinity. (The
// instruction takes subnormals for zero.)
CYCLEGAN_FAST_INLINE HalfWordVec narrow(FloatVec value, BFloat16) {
#ifdef __AVX512BF16__
  return bit_cast<HalfWordVec>(_mm512_cvtneps_pbh(bit_cast<__m512>(value)));
#else
  const WordVec bits = bit_cast<WordVec>(value);
  const WordVec rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return to_half_words(value == value ? rounded : WordVec{} + 0x7fc0u);
#endif
}

// Loads and stores need no alignment.
template <class T>
CYCLEGAN_FAST_INLINE Vec<T> load(const T* from) {
  if constexpr (sizeof(T) == 2) {
    HalfWordVec bits;
    __builtin_memcpy(&bits, from, sizeof bits);
    return widen(bits, T{});
  } else {
    Vec<T> value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
  }
}

template <class T>
CYCLEGAN_FAST_INLINE void store(T* to, Vec<T> value) {
  if constexpr (sizeof(T) == 2) {
    const HalfWordVec bits = narrow(value, T{});
    __builtin_memcpy(to, &bits, sizeof bits);
  } else {
    __builtin_memcpy(to, &value, sizeof value);
  }
}

// The first `count` lanes, the others zero; 0 < count < lanes.
template <class T>
CYCLEGAN_FAST_INLINE Vec<T> load_partial(const T* from, int64_t count) {
  T lanes[kLanes<T>] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
  return load(lanes);
}

template <class T>
CYCLEGAN_FAST_INLINE void store_partial(T* to, Vec<T> value, int64_t count) {
  T lanes[kLanes<T>];
  store(lanes, value);
  for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

// Zero in the lanes from `count` on.
template <class A>
CYCLEGAN_FAST_INLINE Vec<A> keep_first(Vec<A> value, int64_t count) {
  A lanes[kLanes<A>];
  store(lanes, value);
  for (int64_t i = count; i < kLanes<A>; ++i) lanes[i] = 0;
  return load(lanes);
}

CYCLEGAN_FAST_INLINE float to_accumulator(float value) { return value; }
CYCLEGAN_FAST_INLINE double to_accumulator(double value) { return value; }
CYCLEGAN_FAST_INLINE float to_accumulator(BFloat16 value) {
  return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}
CYCLEGAN_FAST_INLINE float to_accumulator(Half value) {
  return widen(HalfWordVec{} + value.bits, Half{})[0];
}

template <class A, int kBytes>
struct VecOfBytes {
  typedef A type __attribute__((vector_size(kBytes)));
};

// Sum of the lanes, always in the same order: one half added to the other until one lane is left.
template <class A, int kBytes = kVectorBytes>
CYCLEGAN_FAST_INLINE double sum_lanes(typename VecOfBytes<A, kBytes>::type value) {
  constexpr int kLeft = kBytes / static_cast<int>(sizeof(A));
  if constexpr (kLeft == 2) {
    return static_cast<double>(value[0] + value[1]);
  } else {
    typename VecOfBytes<A, kBytes / 2>::type low, high;
    __builtin_memcpy(&low, &value, sizeof low);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&value) + sizeof low, sizeof high);
    return sum_lanes<A, kBytes / 2>(low + high);
  }
}

// Asks for what lies half a page on, while a kernel walks through memory. The processor does so by
// itself, but too late for memory that is in no cache, and hardly at all for memory that is only
// written (measured 2026-11 on cold channels_last images: reading 1.4, writing 1.2 times as fast).
template <class T>
CYCLEGAN_FAST_INLINE void prefetch_ahead(const T* address) {
  __builtin_prefetch(reinterpret_cast<const char*>(address) + 2048);
}
template <class T>
CYCLEGAN_FAST_INLINE void prefetch_ahead_to_write(T* address) {
  __builtin_prefetch(reinterpret_cast<char*>(address) + 2048, 1);
}

CYCLEGAN_FAST_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls body(T{}) with the element type that a dtype stands for.
template <class Body>
CYCLEGAN_FAST_INLINE void with_dtype(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::kFloat16:
      return body(Half{});
    case Dtype::kBFloat16:
      return body(BFloat16{});
    case Dtype::kFloat32:
      return body(float{});
    case Dtype::kFloat64:
      return body(double{});
  }
}

}  // namespace
}  // namespace cyclegan_fast
