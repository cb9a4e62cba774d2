// SPDX-License-Identifier: MIT
// Included ahead of csrc/registration.cpp and csrc/ops/<stem>_cuda.cpp: their ops are registered as
// cyclegan_fast_emulated, for tensors of the CPU, with one device and one stream.
#pragma once

#include "common/torch_stable.h"

namespace cyclegan_fast {

struct CudaDeviceGuard {
  explicit CudaDeviceGuard(const Tensor&) {}
};

inline void* current_cuda_stream(const Tensor&) { return nullptr; }

}  // namespace cyclegan_fast

#define EMULATED_CUDA CPU
#define EMULATED_CompositeExplicitAutograd CompositeExplicitAutograd
#define EMULATED_IMPL(key, library) \
  _STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_emulated, key, library, C10_UID)
#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(name, key, library) EMULATED_IMPL(EMULATED_##key, library)
#undef STABLE_TORCH_LIBRARY
#define STABLE_TORCH_LIBRARY(name, library) \
  _STABLE_TORCH_LIBRARY_FRAGMENT(cyclegan_fast_emulated, library, C10_UID)
