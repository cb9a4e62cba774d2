// SPDX-License-Identifier: MIT
// instance_norm_act backward, channels_last: g = adjoint of the pad(grad_y) + grad_skip, read in
// place where it can be. Anonymous namespace: see common/vec.h.
#pragma once

#include "common/rows.h"
#include "common/scratch.h"
#include "ops/instance_norm_act_math.h"

namespace cyclegan_fast {
namespace {

template <class T>
struct GradientScratch {
  static constexpr int64_t kBytes = 16384;  // half of the smallest first-level cache
  int64_t pixels;                           // of `sum`
  Scratch<Acc<T>> sum;
  Scratch<T> gathered;  // one row of a strided operand

  CYCLEGAN_FAST_INLINE explicit GradientScratch(const InstanceNormActSizes& p)
      : pixels((kBytes / (static_cast<int64_t>(sizeof(Acc<T>)) * p.c) / 4 + 1) * 4),
        sum(pixels * p.c),
        gathered(p.w * p.c) {}
};

// Calls body(begin, end, g) for runs of pixels that make up row h of image n; g: their gradient.
// Where grad_residual is asked for it is written first and then read: what goes to the residual and
// what goes through the norm start from the same rounded values.
template <class T, class Body>
CYCLEGAN_FAST_INLINE void with_gradient(const InstanceNormActBwdParams& p, int64_t n, int64_t h,
                                        const GradientScratch<T>& scratch, const Body& body) {
  const int64_t padded_width = p.w + 2 * p.pad;
  const T* grad_y = nullptr;
  if (p.grad_y)
    grad_y = static_cast<const T*>(p.grad_y) + n * (p.h + 2 * p.pad) * padded_width * p.c;
  Row<T> skip = {};
  if (p.grad_skip.data) skip = strided_row<T>(p.grad_skip, n, 0, h, p.w, p.c, scratch.gathered);
  T* residual = nullptr;
  if (p.grad_residual) residual = static_cast<T*>(p.grad_residual) + (n * p.h + h) * p.w * p.c;
  const Mirrors rows = mirrors(h, p.h, p.pad);

  const auto sum_run = [&](int64_t begin, int64_t end, auto* out) {
    for (int64_t w = begin; w < end; ++w) {
      const T* skip_pixel = skip.data ? skip.data + w * skip.pixel : nullptr;
      if (grad_y) {
        fold_pixel(grad_y, skip_pixel, rows, mirrors(w, p.w, p.pad), padded_width, p.c,
                   out + (w - begin) * p.c);
      } else {
        convert(out + (w - begin) * p.c, skip_pixel, p.c);
      }
    }
  };
  const auto sum_runs = [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; w += scratch.pixels) {
      const int64_t stop = smaller(w + scratch.pixels, end);
      if (residual) {
        sum_run(w, stop, residual + w * p.c);
        body(w, stop, Row<T>{residual + w * p.c, p.c});
      } else {
        sum_run(w, stop, static_cast<Acc<T>*>(scratch.sum));
        body(w, stop, Row<Acc<T>>{scratch.sum, p.c});
      }
    }
  };

  if (!grad_y && !residual) return body(0, p.w, skip);
  // Columns that no other column mirrors, in a row that no other row mirrors.
  const bool in_place = !residual && !skip.data && rows.count == 1 && p.w > 2 * (p.pad + 1);
  if (!in_place) return sum_runs(0, p.w);
  const int64_t begin = p.pad > 0 ? p.pad + 1 : 0, end = p.w - begin;
  const T* row = grad_y + (rows.at[0] * padded_width + p.pad) * p.c;
  sum_runs(0, begin);
  body(begin, end, Row<T>{row + begin * p.c, p.c});
  sum_runs(end, p.w);
}

}  // namespace
}  // namespace cyclegan_fast
