// SPDX-License-Identifier: MIT
// Included ahead of csrc/registration.cpp and csrc/ops/<stem>_cuda.cpp: their ops are registered in
// EMULATED_NAMESPACE, for tensors of the CPU, with one device and one stream.
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
#define EMULATED_IMPL(name, key, library) _STABLE_TORCH_LIBRARY_IMPL(name, key, library, C10_UID)
#define EMULATED_IMPL_OF(name, key, library) EMULATED_IMPL(name, key, library)
#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(name, key, library) \
  EMULATED_IMPL_OF(EMULATED_NAMESPACE, EMULATED_##key, library)
#undef STABLE_TORCH_LIBRARY
#define EMULATED_FRAGMENT(name, library) _STABLE_TORCH_LIBRARY_FRAGMENT(name, library, C10_UID)
#define STABLE_TORCH_LIBRARY(name, library) EMULATED_FRAGMENT(EMULATED_NAMESPACE, library)
