// SPDX-License-Identifier: MIT
// instance_norm_act forward on the CPU, channels_last layout; compiled once per instruction set.
#include "common/moments.h"
#include "common/rows.h"
#include "common/scratch.h"
#include "common/unit.h"
#include "ops/instance_norm_act_nhwc_cpu.h"

namespace cyclegan_fast {
namespace {

// Leaves mean and sum of squared deviations of each channel over the band. As in moments.h, sums
// are taken around the mean of the first eighth. The mean is left as its distance from the image's
// first pixel: a large mean would take the bits in which bands differ. scratch: [3, C].
template <class T>
void band_statistics(const InstanceNormActFwdParams& p, int64_t task, Acc<T>* scratch) {
  using A = Acc<T>;
  const Band band(p, task);
  const int64_t pixels = (band.end - band.begin) * p.w;
  const int64_t first = pixels <= 256 ? pixels : pixels / 8;
  const T* image = static_cast<const T*>(p.x) + band.n * p.h * p.w * p.c;
  const T* x = image + band.begin * p.w * p.c;
  A *around = scratch, *sum = scratch + p.c, *sum_squares = scratch + 2 * p.c;
  A* mean = partial<T>(p, task);
  A* squares = mean + p.c;

  clear(around, p.c);
  for_tiles<T>(first, p.c, [&](auto tile) {
    Vec<T> total = tile.load(around);
    for (int k = 0; k < tile.kPixels; ++k) total += tile.load(x, p.c, k);
    tile.store(around, total);
  });
  for (int64_t c = 0; c < p.c; ++c) around[c] /= static_cast<A>(first);

  clear(mean, 2 * p.c);
  // Two levels of sums keep the rounding of thousands of additions small.
  for (int64_t begin = 0; begin < pixels; begin += 256) {
    clear(sum, 2 * p.c);
    for_tiles<T>(smaller(256, pixels - begin), p.c, [&](auto tile) {
      const Vec<T> origin = tile.load(around);
      Vec<T> s = {}, q = {};
      for (int k = 0; k < tile.kPixels; ++k) {
        const Vec<T> deviation = tile.load(x + begin * p.c, p.c, k) - origin;
        s += deviation;
        q += deviation * deviation;
      }
      tile.store(sum, tile.load(sum) + s);
      tile.store(sum_squares, tile.load(sum_squares) + q);
    });
    for (int64_t c = 0; c < 2 * p.c; ++c) mean[c] += sum[c];
  }
  for (int64_t c = 0; c < p.c; ++c) {
    const A total = mean[c], shift = total / static_cast<A>(pixels);
    mean[c] = around[c] - to_accumulator(image[c]) + shift;
    squares[c] -= total * shift;
  }
}

template <class T>
void merge_bands(const InstanceNormActFwdParams& p, int64_t task) {
  using A = Acc<T>;
  const Group group(p, task);
  const int64_t bands = instance_norm_act_bands(p.h);
  double mean[kChannelGroup] = {}, squares[kChannelGroup] = {};
  const auto for_bands = [&](const auto& body) {
    for (int64_t b = group.n * bands; b < (group.n + 1) * bands; ++b) {
      const Band band(p, b);
      const A* found = partial<T>(p, b) + group.begin;
      body(static_cast<double>((band.end - band.begin) * p.w), found, found + p.c);
    }
  };
  const double pixels = static_cast<double>(p.h * p.w);
  const T* origin = static_cast<const T*>(p.x) + group.n * p.h * p.w * p.c + group.begin;
  for_bands([&](double count, const A* means, const A*) {
    for (int64_t i = 0; i < group.size; ++i) mean[i] += means[i] * (count / pixels);
  });
  for_bands([&](double count, const A* means, const A* found) {
    for (int64_t i = 0; i < group.size; ++i) {
      const double delta = means[i] - mean[i];
      squares[i] += found[i] + count * delta * delta;
    }
  });
  for (int64_t i = 0; i < group.size; ++i) {
    const Moments all = {pixels, to_accumulator(origin[i]) + mean[i], squares[i]};
    const int64_t plane = group.n * p.c + group.begin + i;
    static_cast<A*>(p.mean)[plane] = static_cast<A>(all.mean);
    static_cast<A*>(p.rstd)[plane] = static_cast<A>(all.rstd(p.eps));
  }
}

template <class T, bool kResidual>
CYCLEGAN_FAST_INLINE void write_pixels(const InstanceNormActFwdParams& p, const T* x,
                                       Row<T> residual, T* y,
                                       const ChannelConstants<T>& constants) {
  const Activation<T> act(p);
  for_tiles<T>(p.w, p.c, [&](auto tile) {
    const Affine<T> affine = constants.of(tile);
    for (int k = 0; k < tile.kPixels; ++k) {
      Vec<T> value = act(affine(tile.load(x, p.c, k) - affine.mean));
      if (kResidual) value += tile.load(residual.data, residual.pixel, k);
      tile.store(y, p.c, k, value);
    }
  });
}

template <class T>
void write_row(const InstanceNormActFwdParams& p, int64_t task, T* gathered, Acc<T>* scratch) {
  const int64_t n = task / p.h, h = task % p.h, row_size = (p.w + 2 * p.pad) * p.c;
  const T* x = static_cast<const T*>(p.x) + task * p.w * p.c;
  T* image = static_cast<T*>(p.y) + n * (p.h + 2 * p.pad) * row_size;
  T* row = image + (h + p.pad) * row_size + p.pad * p.c;
  const ChannelConstants<T> constants(p, n, scratch);
  if (p.residual.data) {
    const Row<T> residual = strided_row(p.residual, n, 0, h, p.w, p.c, gathered);
    write_pixels<T, true>(p, x, residual, row, constants);
  } else {
    write_pixels<T, false>(p, x, {}, row, constants);
  }
  mirror_columns(row, p.w, p.c, p.pad);
  mirror_rows(image, h, p.h, row_size, p.pad);
}

void statistics(const InstanceNormActFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    const Scratch<Acc<decltype(type)>> scratch(3 * p.c);
    for (int64_t task = begin; task < end; ++task)
      band_statistics<decltype(type)>(p, task, scratch);
  });
}

void merge_statistics(const InstanceNormActFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    for (int64_t task = begin; task < end; ++task) merge_bands<decltype(type)>(p, task);
  });
}

// Rows are written last to first: the last ones read for the statistics are in the cache still.
void write(const InstanceNormActFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    const Scratch<decltype(type)> gathered(p.w * p.c);
    const Scratch<Acc<decltype(type)>> scratch(2 * p.c);
    for (int64_t task = end - 1; task >= begin; --task)
      write_row<decltype(type)>(p, task, gathered, scratch);
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(InstanceNormActNhwcFwdKernels, instance_norm_act_nhwc_fwd) = {
    .statistics = statistics, .merge = merge_statistics, .write = write};

}  // namespace cyclegan_fast
