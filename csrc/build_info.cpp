// SPDX-License-Identifier: MIT
// The module cyclegan_fast._build_info. pybind11 stays in here: it has no stable ABI.
#include "build_info.h"

#include <pybind11/pybind11.h>

PYBIND11_MODULE(_build_info, module) {
  module.doc() = "How the compiled libraries of cyclegan_fast were built.";
  module.def(
      "build_info",
      [] {
        const auto& info = cyclegan_fast::kBuildInfo;
        pybind11::dict values;
        values["version"] = info.version;
        values["commit"] = info.commit;
        values["build_type"] = info.build_type;
        values["compiler"] = info.compiler;
        values["instruction_sets"] = pybind11::str(info.instruction_sets).attr("split")();
        values["cuda"] = info.cuda;
        values["cuda_architectures"] = pybind11::str(info.cuda_architectures).attr("split")();
        values["no_cuda"] = info.no_cuda;
        values["torch"] = info.torch;
        values["torch_target"] = info.torch_target;
        return values;
      },
      "Return version, commit, compilers, instruction sets, CUDA architectures and PyTorch.");
}
