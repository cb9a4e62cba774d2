// SPDX-License-Identifier: MIT
// Kernels that are wrong in the ways that the emulator must notice, and one that is right.
#include "common/launch.cuh"

namespace cyclegan_fast {
namespace {

constexpr int kThreads = 64;

// Turns kThreads values round, through shared memory.
template <bool kWaits>
__global__ void reverse_kernel(float* values) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = values[threadIdx.x];
  if (kWaits) __syncthreads();
  values[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

// Writes over what a slower warp has still to read.
__global__ void early_reuse_kernel(float* values) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  const float mirrored = shared[kThreads - 1 - threadIdx.x];
  shared[threadIdx.x] = mirrored + __shfl_xor_sync(0xffffffffu, mirrored, 1);
  __syncthreads();
  values[threadIdx.x] = mirrored;
}

__global__ void divergent_kernel(float* values) {
  if (threadIdx.x < 40) {
    __syncthreads();
    values[threadIdx.x] += 1;
  } else {
    __syncthreads();
    values[threadIdx.x] += 2;
  }
}

__global__ void missing_lanes_kernel(float* values) {
  if (threadIdx.x == 3) __syncthreads();
  values[threadIdx.x] += __shfl_xor_sync(0xffffffffu, values[threadIdx.x], 1);
}

__global__ void wrong_mask_kernel(float* values) {
  values[threadIdx.x] += __shfl_xor_sync(0x0000ffffu, values[threadIdx.x], 1);
}

__global__ void lane_outside_mask_kernel(float* values) {
  if (threadIdx.x % 32 < 16) values[threadIdx.x] += __shfl_xor_sync(0x0000ffffu, 1.0f, 16);
}

__global__ void uninitialised_shared_kernel(float* values) {
  CYCLEGAN_FAST_SHARED(float, shared);
  if (threadIdx.x != 5) shared[threadIdx.x] = 1;
  __syncthreads();
  values[threadIdx.x] = shared[threadIdx.x];
}

__global__ void beyond_shared_kernel(float* values) {
  CYCLEGAN_FAST_SHARED(float, shared);
  shared[threadIdx.x + 1] = values[threadIdx.x];
}

__global__ void overflow_kernel(int* values) { values[threadIdx.x] += 0x7fffffff; }

cudaError_t start(void (*kernel)(float*), float* values, size_t shared = 0,
                  unsigned threads = kThreads) {
  return launch(kernel, 1, threads, shared, nullptr, values);
}

}  // namespace

extern "C" {
cudaError_t right(float* v) { return start(reverse_kernel<true>, v); }
cudaError_t race(float* v) { return start(reverse_kernel<false>, v); }
cudaError_t early_reuse(float* v) { return start(early_reuse_kernel, v); }
cudaError_t divergent(float* v) { return start(divergent_kernel, v); }
cudaError_t missing_lanes(float* v) { return start(missing_lanes_kernel, v); }
cudaError_t wrong_mask(float* v) { return start(wrong_mask_kernel, v); }
cudaError_t lane_outside_mask(float* v) { return start(lane_outside_mask_kernel, v); }
cudaError_t too_many_threads(float* v) { return start(reverse_kernel<true>, v, 0, 2048); }
cudaError_t uninitialised_shared(float* v) {
  return start(uninitialised_shared_kernel, v, kThreads * sizeof(float));
}
cudaError_t beyond_shared(float* v) {
  return start(beyond_shared_kernel, v, kThreads * sizeof(float));
}
cudaError_t overflow(int* v) { return launch(overflow_kernel, 1, 1, 0, nullptr, v); }
}

}  // namespace cyclegan_fast
