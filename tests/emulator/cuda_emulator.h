// SPDX-License-Identifier: MIT
// The CUDA of our kernels for a C++ compiler: included ahead of their source (-include), it stands
// in for the runtime and for the intrinsics that they use. One that is not here does not compile.
#pragma once

#define CYCLEGAN_FAST_EMULATOR

#include <cuda_bf16.h>  // NVIDIA's own headers are plain C++ on the host
#include <cuda_fp16.h>
#include <driver_types.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <string>

#include "fibers.h"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#undef __forceinline__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __shared__ static thread_local  // see poison_shared in fibers.cpp
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline

#define threadIdx (::cuda_emulator::thread_index())
#define blockIdx (::cuda_emulator::block_index())
#define blockDim (::cuda_emulator::block_size())
#define gridDim (::cuda_emulator::grid_size())

#define CUDA_EMULATOR_TEXT(x) #x
#define CUDA_EMULATOR_LINE(x) CUDA_EMULATOR_TEXT(x)
#define __syncthreads() ::cuda_emulator::wait_for_block(__FILE__ ":" CUDA_EMULATOR_LINE(__LINE__))

// Of dynamic shared memory: as many bytes as the launch asks for and not one more, NaN at first.
#define CYCLEGAN_FAST_SHARED(T, name) \
  T* name = static_cast<T*>(static_cast<void*>(::cuda_emulator::dynamic_shared))

namespace cuda_emulator {

inline unsigned char* dynamic_shared = nullptr;
inline size_t dynamic_shared_bytes = 0;
inline std::string failure;

// Of the imaginary device: few, so that persistent blocks have several tiles each.
inline int multiprocessors = 3;
constexpr size_t kUsualShared = size_t{48} << 10, kMostShared = size_t{227} << 10;
inline std::map<const void*, size_t> allowed_shared;  // by kernel, where it is more than usual

}  // namespace cuda_emulator

template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
  static_assert(sizeof(T) <= ::cuda_emulator::kLargestExchange);
  T other;
  ::cuda_emulator::exchange(mask, &value, &other, sizeof value, ::cuda_emulator::lane() ^ lanes);
  return other;
}

// Lanes that have returned are not waited for.
inline void __syncwarp() {
  char nothing = 0;
  ::cuda_emulator::exchange(0xffffffffu, &nothing, &nothing, sizeof nothing,
                            ::cuda_emulator::lane());
}

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
using std::max;
using std::min;

namespace cyclegan_fast {

template <class... Parameters>
cudaError_t allow_shared(void (*kernel)(Parameters...), int bytes) {
  if (static_cast<size_t>(bytes) > cuda_emulator::kMostShared) return cudaErrorInvalidValue;
  cuda_emulator::allowed_shared[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}

inline cudaError_t multiprocessors(int* count) {
  *count = cuda_emulator::multiprocessors;
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t, const Arguments&... arguments) {
  using namespace cuda_emulator;
  struct Shared {
    unsigned char* memory;
    explicit Shared(size_t bytes) : memory(nullptr) {
      void* made = nullptr;
      if (!bytes) return;
      if (posix_memalign(&made, 16, bytes)) throw std::bad_alloc();
      std::memset(made, 0xff, bytes);
      dynamic_shared = memory = static_cast<unsigned char*>(made);
      dynamic_shared_bytes = bytes;
    }
    ~Shared() {
      std::free(memory);
      dynamic_shared = nullptr;
      dynamic_shared_bytes = 0;
    }
  };
  const auto allowed = allowed_shared.find(reinterpret_cast<const void*>(kernel));
  if (shared_bytes > (allowed == allowed_shared.end() ? kUsualShared : allowed->second))
    return cudaErrorInvalidValue;
  try {
    const Shared shared(shared_bytes);
    run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z},
             [&] { kernel(static_cast<Parameters>(arguments)...); });
  } catch (const std::exception& error) {
    failure = error.what();
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

}  // namespace cyclegan_fast
