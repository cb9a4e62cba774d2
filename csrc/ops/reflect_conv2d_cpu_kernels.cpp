// SPDX-License-Identifier: MIT
// What goes before and after the library's products, on the CPU; compiled once per instruction set.
//
// Winograd's F(3x3, 2x2): with B, G and A of Lavin and Gray, "Fast Algorithms for Convolutional
// Neural Networks" (2016), section 4.1, forward is y = A'((G w G') * (B' x B)) A, so of the
// weight's gradient a window's share is G'((A grad_y A') * (B' x B)) G.
#include "ops/reflect_conv2d_cpu_kernels.h"

#include "common/rows.h"
#include "common/scratch.h"
#include "common/unit.h"
#include "common/vec.h"

namespace cyclegan_fast {
namespace {

using V = Vec<float>;

// One column of B' x.
CYCLEGAN_FAST_INLINE void factors_of_x(const V (&x)[4], V (&made)[4]) {
  made[0] = x[0] - x[2];
  made[1] = x[1] + x[2];
  made[2] = x[2] - x[1];
  made[3] = x[1] - x[3];
}

// One column of A grad_y.
CYCLEGAN_FAST_INLINE void factors_of_result(const V (&y)[2], V (&made)[4]) {
  made[0] = y[0];
  made[1] = y[0] + y[1];
  made[2] = y[0] - y[1];
  made[3] = -y[1];
}

// One column of G' m.
CYCLEGAN_FAST_INLINE void gathered(const V (&m)[4], V (&made)[3]) {
  const V sum = (m[1] + m[2]) * 0.5f;
  made[0] = m[0] + sum;
  made[1] = (m[1] - m[2]) * 0.5f;
  made[2] = sum + m[3];
}

CYCLEGAN_FAST_INLINE V load_some(const float* from, int64_t left) {
  return left >= kLanes<float> ? load(from) : load_partial(from, left);
}

CYCLEGAN_FAST_INLINE void store_some(float* to, V value, int64_t left) {
  if (left >= kLanes<float>) {
    store(to, value);
  } else {
    store_partial(to, value, left);
  }
}

template <int kSide>
CYCLEGAN_FAST_INLINE void column_factors(const V (&in)[kSide], V (&made)[4]) {
  if constexpr (kSide == 2) {
    factors_of_result(in, made);
  } else {
    factors_of_x(in, made);
  }
}

template <int kSide>
void window_factors(const WinogradFactorsParams& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    const int64_t window = p.first + task;
    const int64_t image = window / (p.rows * p.columns);
    const int64_t top = window / p.columns % p.rows * 2, left = window % p.columns * 2;
    const float* from = p.image + ((image * p.h + top) * p.w + left) * p.c;
    float* to = p.factors + task * kWinogradProducts * p.c;
    for (int64_t c = 0; c < p.c; c += kLanes<float>) {
      V half[kSide][4];  // a column of the window in each row
      for (int j = 0; j < kSide; ++j) {
        V column[kSide];
        for (int i = 0; i < kSide; ++i)
          // Beyond the image is nothing that a result takes part in.
          column[i] = top + i < p.h && left + j < p.w
                          ? load_some(from + (i * p.w + j) * p.c + c, p.c - c)
                          : V{};
        column_factors<kSide>(column, half[j]);
      }
      for (int i = 0; i < 4; ++i) {
        V row[kSide], made[4];
        for (int j = 0; j < kSide; ++j) row[j] = half[j][i];
        column_factors<kSide>(row, made);
        for (int j = 0; j < 4; ++j) store_some(to + (4 * i + j) * p.c + c, made[j], p.c - c);
      }
    }
  }
}

void factors(const WinogradFactorsParams& p, int64_t begin, int64_t end) {
  if (p.of_result) {
    window_factors<2>(p, begin, end);
  } else {
    window_factors<4>(p, begin, end);
  }
}

void gather(const WinogradGatherParams& p, int64_t begin, int64_t end) {
  for (int64_t o = begin; o < end; ++o) {
    const float* from = p.products + o * p.channels;
    float* to = p.grad_weight + o * 9 * p.channels;
    for (int64_t c = 0; c < p.channels; c += kLanes<float>) {
      const int64_t left = p.channels - c;
      V half[4][3];
      for (int j = 0; j < 4; ++j) {
        V column[4];
        for (int i = 0; i < 4; ++i)
          column[i] = load_some(from + (4 * i + j) * p.out_channels * p.channels + c, left);
        gathered(column, half[j]);
      }
      for (int r = 0; r < 3; ++r) {
        const V row[4] = {half[0][r], half[1][r], half[2][r], half[3][r]};
        V made[3];
        gathered(row, made);
        for (int s = 0; s < 3; ++s) store_some(to + (3 * r + s) * p.channels + c, made[s], left);
      }
    }
  }
}

template <class T>
void sum_rows_of(const ThinRowsParams& p, int64_t begin, int64_t end) {
  const int64_t pixel = p.taps * p.c, row_size = p.w * pixel;
  const Scratch<Acc<T>> sums(p.w * p.c);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / p.h, h = task % p.h;
    const T* bias = static_cast<const T*>(p.bias);
    for (int64_t w = 0; w < p.w; ++w)
      for (int64_t c = 0; c < p.c; ++c) sums[w * p.c + c] = bias ? to_accumulator(bias[c]) : 0;
    for (int64_t t = 0; t < p.taps; ++t) {
      const int64_t from = p.back ? h - t : h + t;
      if (from < 0 || from >= p.rows_h) continue;
      const T* row = static_cast<const T*>(p.rows) + (image * p.rows_h + from) * row_size + t * p.c;
      for (int64_t w = 0; w < p.w; ++w)
        for (int64_t c = 0; c < p.c; ++c) sums[w * p.c + c] += to_accumulator(row[w * pixel + c]);
    }
    convert(static_cast<T*>(p.image_out) + task * p.w * p.c, static_cast<const Acc<T>*>(sums),
            p.w * p.c);
  }
}

template <class T>
void spread_rows_of(const ThinRowsParams& p, int64_t begin, int64_t end) {
  const int64_t pixel = p.taps * p.c;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / p.rows_h, h = task % p.rows_h;
    T* row = static_cast<T*>(p.rows_out) + task * p.w * pixel;
    for (int64_t t = 0; t < p.taps; ++t) {
      const int64_t from = h - t;
      const bool inside = from >= 0 && from < p.h;
      const T* source =
          inside ? static_cast<const T*>(p.image) + (image * p.h + from) * p.w * p.c : nullptr;
      for (int64_t w = 0; w < p.w; ++w)
        for (int64_t c = 0; c < p.c; ++c)
          row[w * pixel + t * p.c + c] = inside ? source[w * p.c + c] : T{};
    }
  }
}

void sum_rows(const ThinRowsParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) { sum_rows_of<decltype(type)>(p, begin, end); });
}

void spread_rows(const ThinRowsParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) { spread_rows_of<decltype(type)>(p, begin, end); });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(ReflectConv2dKernels, reflect_conv2d) = {
    .factors = factors, .sum_rows = sum_rows, .spread_rows = spread_rows, .gather = gather};

}  // namespace cyclegan_fast
