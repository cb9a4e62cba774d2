// SPDX-License-Identifier: MIT
#include "common/isa.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace cyclegan_fast {
namespace {

Isa detect() {
#ifdef CYCLEGAN_FAST_HAS_AVX512_BF16
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  Isa best = bf16 ? Isa::kAvx512Bf16 : avx512 ? Isa::kAvx512 : avx2 ? Isa::kAvx2 : Isa::kDefault;
  if (const char* limit = std::getenv("ATEN_CPU_CAPABILITY")) {
    for (const Isa isa : {Isa::kDefault, Isa::kAvx2, Isa::kAvx512})
      if (std::strcmp(limit, name(isa)) == 0 && isa < best) best = isa;
  }
  return best;
#else
  return Isa::kDefault;
#endif
}

}  // namespace

Isa active_isa() {
  static const Isa isa = detect();
  return isa;
}

const char* name(Isa isa) {
  constexpr const char* kNames[] = {"default", "avx2", "avx512", "avx512_bf16"};
  return kNames[static_cast<int>(isa)];
}

}  // namespace cyclegan_fast
