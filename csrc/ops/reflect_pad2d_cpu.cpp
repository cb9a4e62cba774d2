// SPDX-License-Identifier: MIT
// reflect_pad2d on the CPU: registers the raw ops and shares the rows out among the threads.
#include "ops/reflect_pad2d_args.h"
#include "ops/reflect_pad2d_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

int64_t tasks(const ReflectPad2dParams& params) {
  return params.n * params.h * (params.channels_last ? 1 : params.c);
}

void reflect_pad2d_fwd(const Tensor& x,  // [N, C, H, W]
                       int64_t pad,
                       const Tensor& y) {  // [N, C, H + 2 pad, W + 2 pad]
  const auto params = reflect_pad2d_args(x, y, pad, true);
  parallel_for(tasks(params), [&](int64_t begin, int64_t end) {
    reflect_pad2d_kernels().fwd(params, begin, end);
  });
}

void reflect_pad2d_bwd(const Tensor& grad_y,  // [N, C, H + 2 pad, W + 2 pad]
                       int64_t pad,
                       const Tensor& grad_x) {  // [N, C, H, W]
  const auto params = reflect_pad2d_args(grad_x, grad_y, pad, false);
  parallel_for(tasks(params), [&](int64_t begin, int64_t end) {
    reflect_pad2d_kernels().bwd(params, begin, end);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("reflect_pad2d_fwd", TORCH_BOX(&reflect_pad2d_fwd));
  library.impl("reflect_pad2d_bwd", TORCH_BOX(&reflect_pad2d_bwd));
}

}  // namespace cyclegan_fast
