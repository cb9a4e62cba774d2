// SPDX-License-Identifier: MIT
// The adjoint of reflection padding as a gather: each pixel collects its own copies, in one fixed
// order, so that no atomic is needed and every run gives the same bits.
#pragma once

#include "common/index.cuh"
#include "common/vector.cuh"

namespace cyclegan_fast {

// Adds to `sum` every copy of a pixel but the first one, (rows.first, columns.first).
// padded: the padded gradient at row 0, column 0 of this image and channel.
template <int kWidth, typename T>
__device__ inline void add_mirrors(const T* padded, int64_t row_stride, int64_t column_stride,
                                   const Mirrors& rows, const Mirrors& columns,
                                   Accumulator<T> (&sum)[kWidth]) {
  if (rows.alone() && columns.alone()) return;
  const int row[3] = {rows.first, rows.low, rows.high};
  const int column[3] = {columns.first, columns.low, columns.high};
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (row[i] < 0) continue;
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      if (column[j] < 0 || (i == 0 && j == 0)) continue;
      Accumulator<T> copy[kWidth];
      unpack(load_vector<T, kWidth>(padded + row[i] * row_stride + column[j] * column_stride),
             copy);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += copy[k];
    }
  }
}

}  // namespace cyclegan_fast
