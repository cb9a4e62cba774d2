// SPDX-License-Identifier: MIT
// The functions of csrc/common/hopper.cuh for a C++ compiler. What is asynchronous on a GPU is done
// as late as may be: a product when its group is waited for, a copy when nobody can go on without
// it. So what is read too soon, or given away too soon, shows. Descriptors, tensor maps and
// barriers are taken at their word, by the rules of PTX ISA 8.0.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <functional>

#include "common/vector.cuh"
#include "cuda_emulator.h"

namespace cuda_emulator {

// Of shared memory as instructions see it. Not a multiple of 32: nothing that needs more is given
// it for free.
uint32_t address_of(const void* p, int alignment);
unsigned char* memory_at(uint32_t address, uint32_t bytes);
inline constexpr uint32_t kSharedBegin = 1040;

// 16-byte units of the 128-byte pattern: bits 4 to 6 of an address, by bits 7 to 9.
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// Element (row, k) of an operand: the address of its two bytes.
uint32_t element_address(uint64_t descriptor, int row, int k, bool transposed);

void make_barrier(void* barrier, int arrivals);
void arrive(void* barrier, int bytes);
void wait_for_phase(const void* barrier, int parity);
void copy_box(void* to, const CUtensorMap& map, const int* coordinates, int rank, void* barrier);
void copy_16_bytes(void* to, const void* from, bool there);
void wait_for_copies();
void note_store(const void* to);
void publish();

void begin_products();
void product(std::function<void()> multiply);
void commit_products();
void wait_for_products(int under_way);

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                      const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* every, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

}  // namespace cuda_emulator

namespace cyclegan_fast {

inline uint32_t shared_address(const void* p) { return cuda_emulator::address_of(p, 1); }

inline void make_barrier(uint64_t* barrier, int arrivals) {
  cuda_emulator::make_barrier(barrier, arrivals);
}
inline void publish_barriers() {}
inline void arrive(uint64_t* barrier) { cuda_emulator::arrive(barrier, 0); }
inline void arrive_and_expect(uint64_t* barrier, int bytes) {
  cuda_emulator::arrive(barrier, bytes);
}
inline void wait(uint64_t* barrier, int parity) { cuda_emulator::wait_for_phase(barrier, parity); }
inline void copy_box(void* to, const CUtensorMap* map, int c0, int c1, int c2, uint64_t* barrier) {
  const int coordinates[] = {c0, c1, c2};
  cuda_emulator::copy_box(to, *map, coordinates, 3, barrier);
}

inline void copy_16_bytes(void* to, const void* from, bool there) {
  cuda_emulator::copy_16_bytes(to, from, there);
}
inline void wait_for_copies() { cuda_emulator::wait_for_copies(); }
template <typename T>
void store_16_bytes(const Vector<T, kWidest<T>>& from, T* to) {
  cuda_emulator::note_store(to);
  store_vector(from, to);
}
inline void publish_to_products() { cuda_emulator::publish(); }

template <int kRegisters>
void give_up_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}
template <int kRegisters>
void take_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}
template <int kNumber, int kThreads>
void wait_for_threads() {
  static_assert(kNumber >= 1 && kNumber <= 15 && kThreads % 32 == 0);
  cuda_emulator::wait_for_some(kNumber, kThreads);
}

inline void begin_products() { cuda_emulator::begin_products(); }
inline void commit_products() { cuda_emulator::commit_products(); }
template <int kUnderWay>
void wait_for_products() {
  cuda_emulator::wait_for_products(kUnderWay);
}
template <int kCount>
void hold(float (&)[kCount]) {}

// The part of a product that the calling thread of its warpgroup has.
template <typename T, int kColumns, bool kTransposedB, bool kTransposedA = false>
void multiply(float (&sums)[kColumns / 2], uint64_t of_a, uint64_t of_b, bool accumulate) {
  using namespace cuda_emulator;
  const int thread = flat_thread() % 128, lane = thread % 32, first = thread / 32 * 16 + lane / 4;
  product([&sums, of_a, of_b, accumulate, lane, first] {
    constexpr int kDepth = 16;
    const auto element = [](uint64_t descriptor, int row, int k, bool transposed) {
      const uint32_t address = element_address(descriptor, row, k, transposed);
      return static_cast<float>(*reinterpret_cast<const T*>(memory_at(address, sizeof(T))));
    };
    float a[2][kDepth];
    for (int down = 0; down < 2; ++down)
      for (int k = 0; k < kDepth; ++k)
        a[down][k] = element(of_a, first + down * 8, k, kTransposedA);
    for (int j = 0; j < kColumns / 8; ++j) {
      for (int right = 0; right < 2; ++right) {
        float b[kDepth];
        for (int k = 0; k < kDepth; ++k)
          b[k] = element(of_b, j * 8 + lane % 4 * 2 + right, k, kTransposedB);
        for (int down = 0; down < 2; ++down) {
          float& sum = sums[j * 4 + down * 2 + right];
          float of_this = 0;
          for (int k = 0; k < kDepth; ++k) of_this += a[down][k] * b[k];
          sum = accumulate ? sum + of_this : of_this;
        }
      }
    }
  });
}

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);
inline EncodeTiled encode_tiled() { return &cuda_emulator::encode_tiled; }

}  // namespace cyclegan_fast
