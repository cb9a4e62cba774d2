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

inline ReflectPad2dCopyParams reflect_pad2d_copy_args(const Tensor& x, int64_t pad,
                                                      const Tensor& y) {
  const Checker check("reflect_pad2d_copy", x);
  check.four_dimensions("x", x);
  const Dtype from = check.dtype("x", x), to = check.dtype("y", y);
  const auto sizes = x.sizes();
  const int64_t n = sizes[0], c = sizes[1], h = sizes[2], w = sizes[3];
  check.pad(pad, h, w);
  check.place("y", y, {n, c, h + 2 * pad, w + 2 * pad});
  const Layout layout = check.layout("y", y);
  if ((from == Dtype::kFloat64) != (to == Dtype::kFloat64))
    check.fail("y", "of dtype float64 if x is, and only then", name(to));
  const auto strides = x.strides();
  return {.from = from,
          .to = to,
          .channels_last = layout == Layout::kChannelsLast,
          .n = n,
          .c = c,
          .h = h,
          .w = w,
          .pad = pad,
          .x = {data(x), strides[0], strides[1], strides[2], strides[3]},
          .y = mutable_data(y)};
}

}  // namespace cyclegan_fast
