// SPDX-License-Identifier: MIT
// Which of the instruction sets that the CPU kernels were compiled for serves in this process.
#pragma once

#include <cstdint>

namespace cyclegan_fast {

enum class Isa { kDefault, kAvx2, kAvx512 };

// The best that the processor and the environment variable ATEN_CPU_CAPABILITY (default, avx2,
// avx512: PyTorch's own) allow; read once.
Isa active_isa();
const char* name(Isa isa);

// What each <stem>_cpu_kernels.cpp gives: run(params, begin, end) for each stage, picked by isa.
template <class Kernels>
const Kernels& pick(const Kernels& by_default, [[maybe_unused]] const Kernels* avx2,
                    [[maybe_unused]] const Kernels* avx512) {
  const Isa isa = active_isa();
  if (isa == Isa::kAvx512) return *avx512;
  if (isa == Isa::kAvx2) return *avx2;
  return by_default;
}

}  // namespace cyclegan_fast

// Declares the table that each unit defines, and kernels_<stem>() which picks one.
#if defined(CYCLEGAN_FAST_HAS_AVX512)
#define CYCLEGAN_FAST_DECLARE_KERNELS(Kernels, stem)               \
  extern const Kernels stem##_default, stem##_avx2, stem##_avx512; \
  inline const Kernels& stem##_kernels() {                         \
    return pick(stem##_default, &stem##_avx2, &stem##_avx512);     \
  }
#else
#define CYCLEGAN_FAST_DECLARE_KERNELS(Kernels, stem) \
  extern const Kernels stem##_default;               \
  inline const Kernels& stem##_kernels() { return stem##_default; }
#endif
