// SPDX-License-Identifier: MIT
// What the host code asks of the CUDA runtime, and the emulator's switches for ctypes.
#include <cuda_runtime_api.h>

#include "cuda_emulator.h"

extern "C" {

cudaError_t CUDARTAPI cudaGetLastError(void) { return cudaSuccess; }
const char* CUDARTAPI cudaGetErrorString(cudaError_t) { return cuda_emulator::failure.c_str(); }

// schedule: 0 forward, 1 reverse, 2 random by the seed.
void cuda_emulator_set_schedule(int schedule, unsigned seed) {
  cuda_emulator::set_schedule(static_cast<cuda_emulator::Schedule>(schedule), seed);
}

}  // extern "C"
