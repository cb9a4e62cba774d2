// SPDX-License-Identifier: MIT
// instance_norm_act backward on the CPU, channels_last layout; compiled once per instruction set.
#include "common/scratch.h"
#include "common/unit.h"
#include "ops/instance_norm_act_nhwc_cpu.h"
#include "ops/instance_norm_act_nhwc_gradient.h"

namespace cyclegan_fast {
namespace {

// Leaves the sums of dz and of dz * (x - mean) over the band.
template <class T>
void band_sums(const InstanceNormActBwdParams& p, int64_t task, const GradientScratch<T>& gradient,
               Acc<T>* scratch) {
  const Band band(p, task);
  const Activation<T> act(p);
  const ChannelConstants<T> constants(p, band.n, scratch);
  Acc<T>*dz_sum = scratch + 2 * p.c, *product_sum = scratch + 3 * p.c;
  Acc<T>* total = partial<T>(p, task);
  clear(total, 2 * p.c);
  for (int64_t h = band.begin; h < band.end; ++h) {
    const T* x = static_cast<const T*>(p.x) + (band.n * p.h + h) * p.w * p.c;
    clear(dz_sum, 2 * p.c);
    with_gradient(p, band.n, h, gradient, [&](int64_t begin, int64_t end, auto g) {
      for_tiles<T>(end - begin, p.c, [&](auto tile) {
        const Affine<T> affine = constants.of(tile);
        Vec<T> s = {}, products = {};
        for (int k = 0; k < tile.kPixels; ++k) {
          const Vec<T> deviation = tile.load(x + begin * p.c, p.c, k) - affine.mean;
          const Vec<T> dz = act.gradient(tile.load(g.data, g.pixel, k), affine(deviation));
          s += dz;
          products += dz * deviation;
        }
        tile.store(dz_sum, tile.load(dz_sum) + s);
        tile.store(product_sum, tile.load(product_sum) + products);
      });
    });
    for (int64_t c = 0; c < 2 * p.c; ++c) total[c] += dz_sum[c];
  }
}

template <class T>
void merge_band_sums(const InstanceNormActBwdParams& p, int64_t task) {
  using A = Acc<T>;
  const Group group(p, task);
  const int64_t bands = instance_norm_act_bands(p.h);
  double dz[kChannelGroup] = {}, product[kChannelGroup] = {};
  for (int64_t b = group.n * bands; b < (group.n + 1) * bands; ++b) {
    const A* found = partial<T>(p, b) + group.begin;
    for (int64_t i = 0; i < group.size; ++i) {
      dz[i] += found[i];
      product[i] += found[i + p.c];
    }
  }
  for (int64_t i = 0; i < group.size; ++i) {
    const int64_t plane = group.n * p.c + group.begin + i;
    static_cast<A*>(p.sums)[plane] = static_cast<A>(dz[i]);
    static_cast<A*>(p.sums)[p.n * p.c + plane] =
        static_cast<A>(product[i] * static_cast<const A*>(p.rstd)[plane]);
  }
}

// grad_x = scale * (dz - mean of dz - (x - mean) * rstd^2 * mean of dz * (x - mean)).
template <class T>
void write_gradient_row(const InstanceNormActBwdParams& p, int64_t task,
                        const GradientScratch<T>& gradient, Acc<T>* scratch) {
  using A = Acc<T>;
  const int64_t n = task / p.h, h = task % p.h;
  const T* x = static_cast<const T*>(p.x) + task * p.w * p.c;
  T* grad_x = static_cast<T*>(p.grad_x) + task * p.w * p.c;
  const A* sums = static_cast<const A*>(p.sums) + n * p.c;
  const A* rstd = static_cast<const A*>(p.rstd) + n * p.c;
  const Activation<T> act(p);
  const ChannelConstants<T> constants(p, n, scratch);
  A *dz_mean = scratch + 2 * p.c, *product_mean = scratch + 3 * p.c;
  const A per_pixel = static_cast<A>(1 / static_cast<double>(p.h * p.w));
  for (int64_t c = 0; c < p.c; ++c) {
    dz_mean[c] = sums[c] * per_pixel;
    product_mean[c] = sums[c + p.n * p.c] * rstd[c] * per_pixel;
  }
  const auto write = [&](int64_t begin, int64_t end, auto g) {
    for_tiles<T>(end - begin, p.c, [&](auto tile) {
      const Affine<T> affine = constants.of(tile);
      const Vec<T> of_dz = tile.load(dz_mean), of_product = tile.load(product_mean);
      for (int k = 0; k < tile.kPixels; ++k) {
        const Vec<T> deviation = tile.load(x + begin * p.c, p.c, k) - affine.mean;
        const Vec<T> dz = act.gradient(tile.load(g.data, g.pixel, k), affine(deviation));
        tile.store(grad_x + begin * p.c, p.c, k,
                   affine.scale * (dz - of_dz - deviation * of_product));
      }
    });
  };
  if (p.grad_residual) {
    write(0, p.w, Row<T>{static_cast<const T*>(p.grad_residual) + task * p.w * p.c, p.c});
  } else {
    with_gradient(p, n, h, gradient, write);
  }
}

void sums(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    const GradientScratch<decltype(type)> gradient(p);
    const Scratch<Acc<decltype(type)>> scratch(4 * p.c);
    for (int64_t task = begin; task < end; ++task) band_sums(p, task, gradient, scratch);
  });
}

void merge_sums(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    for (int64_t task = begin; task < end; ++task) merge_band_sums<decltype(type)>(p, task);
  });
}

void write_gradient(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    const GradientScratch<decltype(type)> gradient(p);
    const Scratch<Acc<decltype(type)>> scratch(4 * p.c);
    for (int64_t task = end - 1; task >= begin; --task)
      write_gradient_row(p, task, gradient, scratch);
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(InstanceNormActNhwcBwdKernels, instance_norm_act_nhwc_bwd) = {
    .sums = sums, .merge = merge_sums, .write = write_gradient};

}  // namespace cyclegan_fast
