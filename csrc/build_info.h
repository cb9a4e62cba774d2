// SPDX-License-Identifier: MIT
// How the libraries were built; the values are filled in from csrc/build_info_values.cpp.in.
#pragma once

namespace cyclegan_fast {

struct BuildInfo {
  const char* version;
  const char* commit;              // `git describe`, or "" outside a checkout
  const char* build_type;          // "Release", ...
  const char* compiler;            // C++ compiler and its version
  const char* instruction_sets;    // of the CPU kernels, space-separated
  const char* cuda;                // nvcc's version, or "" without CUDA kernels
  const char* cuda_architectures;  // space-separated, "-real": no PTX
  const char* no_cuda;             // why there are no CUDA kernels, or ""
  const char* torch;               // the PyTorch whose headers were used
  const char* torch_target;        // the oldest PyTorch that the libraries load on
};

extern const BuildInfo kBuildInfo;

}  // namespace cyclegan_fast
