// SPDX-License-Identifier: MIT
// wgmma.mma_async: products of 64 rows and 16 values deep, by the 128 threads of a warpgroup.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/vector.cuh"

namespace cyclegan_fast {

// Before the first product of a sequence whose sums this thread may have touched.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most so many of the committed groups are under way.
template <int kUnderWay>
__device__ inline void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kUnderWay) : "memory");
}

// Sums are a product's from its start to its wait: the compiler keeps them where they are.
template <int kCount>
__device__ inline void hold(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

#define CYCLEGAN_FAST_PRODUCT(columns, type, places, a, b, more, across_a, across_b, ...)       \
  asm volatile(                                                                                 \
      "{\n"                                                                                     \
      ".reg .pred more;\n"                                                                      \
      "setp.ne.b32 more, %" more                                                                \
      ", 0;\n"                                                                                  \
      "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {" places "}, %" a \
      ", %" b ", more, 1, 1, %" across_a ", %" across_b                                         \
      ";\n"                                                                                     \
      "}"                                                                                       \
      : __VA_ARGS__                                                                             \
      : "l"(of_a), "l"(of_b), "r"(static_cast<int>(accumulate)), "n"(kTransposedA ? 1 : 0),     \
        "n"(kTransposedB ? 1 : 0))

#define CYCLEGAN_FAST_SUMS4(d) "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define CYCLEGAN_FAST_SUMS8(d, i)                                                             \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define CYCLEGAN_FAST_SUMS32(d, i)                                                          \
  CYCLEGAN_FAST_SUMS8(d, i), CYCLEGAN_FAST_SUMS8(d, i + 8), CYCLEGAN_FAST_SUMS8(d, i + 16), \
      CYCLEGAN_FAST_SUMS8(d, i + 24)
#define CYCLEGAN_FAST_PLACES4 "%0, %1, %2, %3"
#define CYCLEGAN_FAST_PLACES32                                                                 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define CYCLEGAN_FAST_PLACES64                                                                   \
  CYCLEGAN_FAST_PLACES32                                                                         \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// sums [64, kColumns] += A [64, 16] B [16, kColumns], or = A B unless it is to accumulate; of T,
// half or bfloat16. Warp w of the warpgroup has rows 16 w to 16 w + 15, lane l of it rows l / 4 and
// l / 4 + 8: sums[4 j + e] is row l / 4 + e / 2 * 8, column 8 j + l % 4 * 2 + e % 2.
//
// of_a, of_b: see matrix_descriptor; K is the inner dimension of each unless it is transposed.
template <typename T, int kColumns, bool kTransposedB, bool kTransposedA = false>
__device__ inline void multiply(float (&sums)[kColumns / 2], uint64_t of_a, uint64_t of_b,
                                bool accumulate) {
  static_assert(kColumns == 8 || kColumns == 64 || kColumns == 128);
  constexpr bool kHalf = std::is_same_v<T, half>;
  if constexpr (kColumns == 8 && kHalf) {
    CYCLEGAN_FAST_PRODUCT("8", "f16", CYCLEGAN_FAST_PLACES4, "4", "5", "6", "7", "8",
                          CYCLEGAN_FAST_SUMS4(sums));
  } else if constexpr (kColumns == 8) {
    CYCLEGAN_FAST_PRODUCT("8", "bf16", CYCLEGAN_FAST_PLACES4, "4", "5", "6", "7", "8",
                          CYCLEGAN_FAST_SUMS4(sums));
  } else if constexpr (kColumns == 64 && kHalf) {
    CYCLEGAN_FAST_PRODUCT("64", "f16", CYCLEGAN_FAST_PLACES32, "32", "33", "34", "35", "36",
                          CYCLEGAN_FAST_SUMS32(sums, 0));
  } else if constexpr (kColumns == 64) {
    CYCLEGAN_FAST_PRODUCT("64", "bf16", CYCLEGAN_FAST_PLACES32, "32", "33", "34", "35", "36",
                          CYCLEGAN_FAST_SUMS32(sums, 0));
  } else if constexpr (kHalf) {
    CYCLEGAN_FAST_PRODUCT("128", "f16", CYCLEGAN_FAST_PLACES64, "64", "65", "66", "67", "68",
                          CYCLEGAN_FAST_SUMS32(sums, 0), CYCLEGAN_FAST_SUMS32(sums, 32));
  } else {
    CYCLEGAN_FAST_PRODUCT("128", "bf16", CYCLEGAN_FAST_PLACES64, "64", "65", "66", "67", "68",
                          CYCLEGAN_FAST_SUMS32(sums, 0), CYCLEGAN_FAST_SUMS32(sums, 32));
  }
}

}  // namespace cyclegan_fast
