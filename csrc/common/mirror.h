// SPDX-License-Identifier: MIT
// Rows and pixels with their mirror images, for kernels that write a padded image or read the
// gradient of one. Anonymous namespace: see vec.h.
#pragma once

#include "common/vec.h"

namespace cyclegan_fast {
namespace {

// The positions in [0, n + 2 pad) that show pixel i of n: its own, then its mirror images.
struct Mirrors {
  int64_t at[3];
  int count;
};

CYCLEGAN_FAST_INLINE Mirrors mirrors(int64_t i, int64_t n, int64_t pad) {
  Mirrors m = {{i + pad, 0, 0}, 1};
  if (i >= 1 && i <= pad) m.at[m.count++] = pad - i;
  if (i <= n - 2 && i >= n - 1 - pad) m.at[m.count++] = pad + 2 * (n - 1) - i;
  return m;
}

template <class T>
CYCLEGAN_FAST_INLINE void copy(T* to, const T* from, int64_t count) {
  __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
}

// Fills the `pad` pixels on both sides of a row of w pixels of c values each; row is its first own
// pixel.
template <class T>
CYCLEGAN_FAST_INLINE void mirror_columns(T* row, int64_t w, int64_t c, int64_t pad) {
  for (int64_t k = 1; k <= pad; ++k) {
    copy(row - k * c, row + k * c, c);
    copy(row + (w - 1 + k) * c, row + (w - 1 - k) * c, c);
  }
}

// Copies padded row h + pad of an image, once written, to the rows above and below that mirror it.
// row_size: values in a padded row.
template <class T>
CYCLEGAN_FAST_INLINE void mirror_rows(T* image, int64_t h, int64_t height, int64_t row_size,
                                      int64_t pad) {
  const Mirrors m = mirrors(h, height, pad);
  for (int i = 1; i < m.count; ++i)
    copy(image + m.at[i] * row_size, image + m.at[0] * row_size, row_size);
}

// out[i] = sum over k of in[k][i]: the values of `in` that fall on the same pixel.
template <class T, int kMax>
CYCLEGAN_FAST_INLINE void sum_sources(const T* const (&in)[kMax], int sources, int64_t count,
                                      Acc<T>* out) {
  const auto sum_at = [&](int64_t i) {
    Vec<T> sum = load(in[0] + i);
    for (int k = 1; k < sources; ++k) sum += load(in[k] + i);
    store(out + i, sum);
  };
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) sum_at(i);
  if (i == count) return;
  if (count >= kLanes<T>) return sum_at(count - kLanes<T>);  // some are computed twice, alike
  Vec<T> sum = load_partial(in[0], count);
  for (int k = 1; k < sources; ++k) sum += load_partial(in[k], count);
  store_partial(out, sum, count);
}

// The gradient that reaches the pixels of unpadded row h from a padded plane (contiguous layout):
// out [W] = sum of padded over the pixel and its mirror images.
template <class T>
CYCLEGAN_FAST_INLINE void fold_row(const T* padded, int64_t h, int64_t height, int64_t width,
                                   int64_t pad, Acc<T>* out) {
  const int64_t padded_width = width + 2 * pad;
  const Mirrors rows = mirrors(h, height, pad);
  const T* sources[3];
  for (int k = 0; k < rows.count; ++k) sources[k] = padded + rows.at[k] * padded_width + pad;
  sum_sources(sources, rows.count, width, out);
  for (int k = 0; k < rows.count; ++k) {
    const T* row = sources[k];
    for (int64_t i = 1; i <= pad; ++i) {
      out[i] += to_accumulator(row[-i]);
      out[width - 1 - i] += to_accumulator(row[width - 1 + i]);
    }
  }
}

// The same for one pixel of an image in channels_last layout: out [C].
template <class T>
CYCLEGAN_FAST_INLINE void fold_pixel(const T* padded, const Mirrors& rows, const Mirrors& columns,
                                     int64_t padded_width, int64_t c, Acc<T>* out) {
  const T* sources[9];
  int count = 0;
  for (int i = 0; i < rows.count; ++i)
    for (int j = 0; j < columns.count; ++j)
      sources[count++] = padded + (rows.at[i] * padded_width + columns.at[j]) * c;
  sum_sources(sources, count, c, out);
}

}  // namespace
}  // namespace cyclegan_fast
