// SPDX-License-Identifier: MIT
// Rows of operands that may have any strides, in the order in which a kernel walks them: W values
// of one channel (contiguous), or W pixels of C values (channels_last). Anonymous namespace: see
// vec.h.
#pragma once

#include "common/mirror.h"
#include "common/strided.h"

namespace cyclegan_fast {
namespace {

// Where a row begins, and how many values lie between two of its pixels.
template <class T>
struct Row {
  const T* data;
  int64_t pixel;
};

// Row h of w pixels of c values, channel by channel from c0 on. Read in place where the values of a
// pixel lie together (and, for c = 1, pixels too); else gathered into scratch [w * c].
template <class T>
CYCLEGAN_FAST_INLINE Row<T> strided_row(const Strided& s, int64_t n, int64_t c0, int64_t h,
                                        int64_t w, int64_t c, T* scratch) {
  const T* from = static_cast<const T*>(s.data) + n * s.n + c0 * s.c + h * s.h;
  if (c == 1 ? s.w == 1 : s.c == 1) return {from, s.w};
  for (int64_t i = 0; i < w; ++i)
    for (int64_t k = 0; k < c; ++k) scratch[i * c + k] = from[i * s.w + k * s.c];
  return {scratch, c};
}

// to[i] = from[i], widened or rounded; the two do not overlap.
template <class To, class From>
CYCLEGAN_FAST_INLINE void convert(To* to, const From* from, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes<To> <= count; i += kLanes<To>) store(to + i, load(from + i));
  if (i < count) store_partial(to + i, load_partial(from + i, count - i), count - i);
}

}  // namespace
}  // namespace cyclegan_fast
