// SPDX-License-Identifier: MIT
// reflect_pad2d on the CPU; compiled once per instruction set.
#include "ops/reflect_pad2d_cpu_kernels.h"

#include "common/rows.h"
#include "common/scratch.h"
#include "common/unit.h"

namespace cyclegan_fast {
namespace {

template <class T>
void copy_rows(const ReflectPad2dParams& p, int64_t begin, int64_t end) {
  const int64_t c = p.channels_last ? p.c : 1;  // values in a pixel
  const int64_t row_size = (p.w + 2 * p.pad) * c;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / p.h, h = task % p.h;
    T* padded = static_cast<T*>(p.out) + image * (p.h + 2 * p.pad) * row_size;
    T* row = padded + (h + p.pad) * row_size + p.pad * c;
    copy(row, static_cast<const T*>(p.in) + task * p.w * c, p.w * c);
    mirror_columns(row, p.w, c, p.pad);
    mirror_rows(padded, h, p.h, row_size, p.pad);
  }
}

template <class T>
void fold_rows(const ReflectPad2dParams& p, int64_t begin, int64_t end) {
  const int64_t c = p.channels_last ? p.c : 1;
  const int64_t padded_width = p.w + 2 * p.pad;
  const Scratch<Acc<T>> sums(p.w);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / p.h, h = task % p.h;
    const T* padded = static_cast<const T*>(p.in) + image * (p.h + 2 * p.pad) * padded_width * c;
    T* row = static_cast<T*>(p.out) + task * p.w * c;
    if (!p.channels_last) {
      fold_row<T>(padded, nullptr, h, p.h, p.w, p.pad, sums);
      convert(row, static_cast<const Acc<T>*>(sums), p.w);
      continue;
    }
    const Mirrors rows = mirrors(h, p.h, p.pad);
    for (int64_t w = 0; w < p.w; ++w)
      fold_pixel<T>(padded, nullptr, rows, mirrors(w, p.w, p.pad), padded_width, c, row + w * c);
  }
}

template <class To, class From>
void converted_rows(const ReflectPad2dCopyParams& p, int64_t begin, int64_t end) {
  const int64_t c = p.channels_last ? p.c : 1;
  const int64_t row_size = (p.w + 2 * p.pad) * c;
  const Scratch<From> scratch(p.w * c);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / p.h, h = task % p.h;
    const int64_t n = p.channels_last ? image : image / p.c;
    const Row<From> from =
        strided_row<From>(p.x, n, image - n * (p.channels_last ? 1 : p.c), h, p.w, c, scratch);
    To* padded = static_cast<To*>(p.y) + image * (p.h + 2 * p.pad) * row_size;
    To* row = padded + (h + p.pad) * row_size + p.pad * c;
    if (from.pixel == c) {
      convert(row, from.data, p.w * c);
    } else {
      for (int64_t w = 0; w < p.w; ++w) convert(row + w * c, from.data + w * from.pixel, c);
    }
    mirror_columns(row, p.w, c, p.pad);
    mirror_rows(padded, h, p.h, row_size, p.pad);
  }
}

void copied(const ReflectPad2dCopyParams& p, int64_t begin, int64_t end) {
  if (p.from == Dtype::kFloat64) return converted_rows<double, double>(p, begin, end);
  with_dtype(p.from, [&](auto from) {
    with_dtype(p.to, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      if constexpr (sizeof(From) < sizeof(double) && sizeof(To) < sizeof(double))
        converted_rows<To, From>(p, begin, end);
    });
  });
}

void fwd(const ReflectPad2dParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) { copy_rows<decltype(type)>(p, begin, end); });
}

void bwd(const ReflectPad2dParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) { fold_rows<decltype(type)>(p, begin, end); });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(ReflectPad2dKernels, reflect_pad2d) = {
    .fwd = fwd, .bwd = bwd, .copy = copied};

}  // namespace cyclegan_fast
