// SPDX-License-Identifier: MIT
// Defines a table of kernels under the name of the instruction set that this unit is compiled for.
#pragma once

#define CYCLEGAN_FAST_JOIN2(stem, isa) stem##_##isa
#define CYCLEGAN_FAST_JOIN(stem, isa) CYCLEGAN_FAST_JOIN2(stem, isa)
#define CYCLEGAN_FAST_DEFINE_KERNELS(Kernels, stem) \
  extern const Kernels CYCLEGAN_FAST_JOIN(stem, CYCLEGAN_FAST_ISA)
