// SPDX-License-Identifier: MIT
// What a launch reports, as an exception that names the op.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>

#include "common/check.h"

namespace cyclegan_fast {

inline void check_launch(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or PyTorch would report it a second time, elsewhere
  if (error == cudaErrorInvalidConfiguration) {
    throw std::runtime_error(text("cyclegan_fast_C::", op,
                                  ": the tensor is larger than one grid of blocks can cover; "
                                  "split the batch"));
  }
  throw std::runtime_error(text("cyclegan_fast_C::", op, ": ", cudaGetErrorString(error)));
}

}  // namespace cyclegan_fast
