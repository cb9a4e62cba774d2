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
    if (c == 1) {  // no call for one value
      row[-k] = row[k];
      row[w - 1 + k] = row[w - 1 - k];
    } else {
      copy(row - k * c, row + k * c, c);
      copy(row + (w - 1 + k) * c, row + (w - 1 - k) * c, c);
    }
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

// Values that fall on the same place of an output: in[0] ... in[count - 1], each a stretch of T.
template <class T>
struct Sources {
  static constexpr int kMost = 10;  // a pixel in a corner and its eight mirror images, and a skip
  const T* in[kMost] = {};
  int count = 0;

  CYCLEGAN_FAST_INLINE void add(const T* source) { in[count++] = source; }
};

template <class T, class Out, int kCount>
CYCLEGAN_FAST_INLINE void sum_some(const Sources<T>& sources, int64_t size, Out* out) {
  const int count = kCount ? kCount : sources.count;
  const auto sum_at = [&](int64_t i) {
    prefetch_ahead(sources.in[0] + i);
    Vec<T> sum = load(sources.in[0] + i);
    for (int k = 1; k < count; ++k) {
      prefetch_ahead(sources.in[k] + i);
      sum += load(sources.in[k] + i);
    }
    prefetch_ahead_to_write(out + i);
    store(out + i, sum);
  };
  int64_t i = 0;
  for (; i + kLanes<T> <= size; i += kLanes<T>) sum_at(i);
  if (i == size) return;
  if (size >= kLanes<T>) return sum_at(size - kLanes<T>);  // some are computed twice, alike
  Vec<T> sum = load_partial(sources.in[0], size);
  for (int k = 1; k < count; ++k) sum += load_partial(sources.in[k], size);
  store_partial(out, sum, size);
}

// out[i] = sum over k of in[k][i] for i < size; Out is T or Acc<T>.
template <class T, class Out>
CYCLEGAN_FAST_INLINE void sum_sources(const Sources<T>& sources, int64_t size, Out* out) {
  if (sources.count == 1) return sum_some<T, Out, 1>(sources, size, out);
  if (sources.count == 2) return sum_some<T, Out, 2>(sources, size, out);
  sum_some<T, Out, 0>(sources, size, out);
}

// The gradient that reaches the pixels of unpadded row h of a plane (contiguous layout): out [W] =
// sum of padded over the pixel and its mirror images, + skip [W] unless null.
template <class T>
CYCLEGAN_FAST_INLINE void fold_row(const T* padded, const T* skip, int64_t h, int64_t height,
                                   int64_t width, int64_t pad, Acc<T>* out) {
  const Mirrors rows = mirrors(h, height, pad);
  Sources<T> sources;
  for (int k = 0; k < rows.count; ++k) sources.add(padded + rows.at[k] * (width + 2 * pad) + pad);
  if (skip) sources.add(skip);
  sum_sources(sources, width, out);
  for (int k = 0; k < rows.count; ++k) {
    const T* row = sources.in[k];
    for (int64_t i = 1; i <= pad; ++i) {
      out[i] += to_accumulator(row[-i]);
      out[width - 1 - i] += to_accumulator(row[width - 1 + i]);
    }
  }
}

// The same for one pixel of an image in channels_last layout: out [C], skip [C].
template <class T, class Out>
CYCLEGAN_FAST_INLINE void fold_pixel(const T* padded, const T* skip, const Mirrors& rows,
                                     const Mirrors& columns, int64_t padded_width, int64_t c,
                                     Out* out) {
  Sources<T> sources;
  for (int i = 0; i < rows.count; ++i)
    for (int j = 0; j < columns.count; ++j)
      sources.add(padded + (rows.at[i] * padded_width + columns.at[j]) * c);
  if (skip) sources.add(skip);
  sum_sources(sources, c, out);
}

}  // namespace
}  // namespace cyclegan_fast
