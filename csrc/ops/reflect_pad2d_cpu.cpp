// SPDX-License-Identifier: MIT
// reflect_pad2d on the CPU: registers the raw ops and shares the rows out among the threads.
#include "ops/reflect_pad2d_args.h"
#include "ops/reflect_pad2d_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

void run(void (*kernel)(const ReflectPad2dParams&, int64_t, int64_t), const ReflectPad2dParams& p) {
  const int64_t tasks = p.n * p.h * (p.channels_last ? 1 : p.c);
  parallel_for(tasks, p.w * (p.channels_last ? p.c : 1),
               [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
}

void reflect_pad2d_fwd(const Tensor& x,  // [N, C, H, W]
                       int64_t pad,
                       const Tensor& y) {  // [N, C, H + 2 pad, W + 2 pad]
  run(reflect_pad2d_kernels().fwd, reflect_pad2d_args(x, y, pad, true));
}

void reflect_pad2d_bwd(const Tensor& grad_y,  // [N, C, H + 2 pad, W + 2 pad]
                       int64_t pad,
                       const Tensor& grad_x) {  // [N, C, H, W]
  run(reflect_pad2d_kernels().bwd, reflect_pad2d_args(grad_x, grad_y, pad, false));
}

void reflect_pad2d_copy(const Tensor& x,  // [N, C, H, W], any strides
                        int64_t pad,
                        const Tensor& y) {  // [N, C, H + 2 pad, W + 2 pad]
  const auto p = reflect_pad2d_copy_args(x, pad, y);
  const int64_t tasks = p.n * p.h * (p.channels_last ? 1 : p.c);
  parallel_for(tasks, p.w * (p.channels_last ? p.c : 1),
               [&](int64_t begin, int64_t end) { reflect_pad2d_kernels().copy(p, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("reflect_pad2d_fwd", TORCH_BOX(&reflect_pad2d_fwd));
  library.impl("reflect_pad2d_copy", TORCH_BOX(&reflect_pad2d_copy));
  library.impl("reflect_pad2d_bwd", TORCH_BOX(&reflect_pad2d_bwd));
}

}  // namespace cyclegan_fast
