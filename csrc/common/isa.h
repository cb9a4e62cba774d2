// SPDX-License-Identifier: MIT
// Which of the instruction sets that the CPU kernels were compiled for serves in this process.
#pragma once

#include <cstdint>

namespace cyclegan_fast {

// avx512_bf16: AVX-512 with the instruction that rounds to bfloat16 (Cooper Lake, Sapphire Rapids,
// Zen 4 and later).
enum class Isa { kDefault, kAvx2, kAvx512, kAvx512Bf16 };

// The best that the processor and the environment variable ATEN_CPU_CAPABILITY (default, avx2 or
// avx512: PyTorch's own) allow; read once.
Isa active_isa();
const char* name(Isa isa);

}  // namespace cyclegan_fast

// Declares the tables that the units of <stem>_cpu_kernels.cpp define, one per instruction set, and
// <stem>_kernels(), which picks one.
#if defined(CYCLEGAN_FAST_HAS_AVX512_BF16)
#define CYCLEGAN_FAST_DECLARE_KERNELS(Kernels, stem)                                   \
  extern const Kernels stem##_default, stem##_avx2, stem##_avx512, stem##_avx512_bf16; \
  inline const Kernels& stem##_kernels() {                                             \
    const Kernels* const tables[] = {&stem##_default, &stem##_avx2, &stem##_avx512,    \
                                     &stem##_avx512_bf16};                             \
    return *tables[static_cast<int>(active_isa())];                                    \
  }
#else
#define CYCLEGAN_FAST_DECLARE_KERNELS(Kernels, stem) \
  extern const Kernels stem##_default;               \
  inline const Kernels& stem##_kernels() { return stem##_default; }
#endif
