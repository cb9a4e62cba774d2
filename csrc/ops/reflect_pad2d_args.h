// SPDX-License-Identifier: MIT
// reflect_pad2d: tensors checked and turned into params, for the CPU and the CUDA side alike.
#pragma once

#include "common/check.h"
#include "ops/reflect_pad2d.h"

namespace cyclegan_fast {

inline ReflectPad2dParams reflect_pad2d_args(const Tensor& small, const Tensor& padded, int64_t pad,
                                             bool forward) {
  const Tensor& in = forward ? small : padded;
  const Checker check(forward ? "reflect_pad2d_fwd" : "reflect_pad2d_bwd", in);
  const Layout layout = check.layout(forward ? "x" : "grad_y", in);
  const Dtype dtype = check.dtype(forward ? "x" : "grad_y", in);
  const auto sizes = in.sizes();
  const int64_t n = sizes[0], c = sizes[1];
  const int64_t h = sizes[2] - (forward ? 0 : 2 * pad), w = sizes[3] - (forward ? 0 : 2 * pad);
  check.pad(pad, h, w);
  if (forward) {
    check.image("y", padded, {n, c, h + 2 * pad, w + 2 * pad}, dtype, layout);
  } else {
    check.image("grad_x", small, {n, c, h, w}, dtype, layout);
  }
  return {.dtype = dtype,
          .channels_last = layout == Layout::kChannelsLast,
          .n = n,
          .c = c,
          .h = h,
          .w = w,
          .pad = pad,
          .in = data(in),
          .out = mutable_data(forward ? padded : small)};
}

}  // namespace cyclegan_fast
