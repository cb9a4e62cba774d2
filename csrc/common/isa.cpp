// SPDX-License-Identifier: MIT
#include "common/isa.h"

#include <cstdlib>
#include <cstring>

namespace cyclegan_fast {
namespace {

Isa detect() {
#ifdef CYCLEGAN_FAST_HAS_AVX512
  const char* wish = std::getenv("ATEN_CPU_CAPABILITY");
  const auto wished = [wish](const char* isa) { return wish && std::strcmp(wish, isa) == 0; };
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (!avx2 || wished("default")) return Isa::kDefault;
  return avx512 && !wished("avx2") ? Isa::kAvx512 : Isa::kAvx2;
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
  constexpr const char* kNames[] = {"default", "avx2", "avx512"};
  return kNames[static_cast<int>(isa)];
}

}  // namespace cyclegan_fast
