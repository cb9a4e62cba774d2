// SPDX-License-Identifier: MIT
// instance_norm_act on the CPU, channels_last layout; compiled once per instruction set.
#include "common/channels.h"
#include "common/moments.h"
#include "common/rows.h"
#include "common/scratch.h"
#include "common/unit.h"
#include "ops/instance_norm_act_cpu_kernels.h"
#include "ops/instance_norm_act_math.h"
#include "ops/instance_norm_act_nhwc_gradient.h"

namespace cyclegan_fast {
namespace {

// The rows of one band of one image; `task` counts bands over all images.
struct Band {
  int64_t n, begin, end;

  CYCLEGAN_FAST_INLINE Band(const InstanceNormActSizes& p, int64_t task) {
    const int64_t bands = instance_norm_act_bands(p.h), band = task % bands;
    n = task / bands;
    begin = band * p.h / bands;
    end = (band + 1) * p.h / bands;
  }
};

// The channels of one image that are merged together; `task` counts groups over all images.
struct Group {
  int64_t n, begin, size;

  CYCLEGAN_FAST_INLINE Group(const InstanceNormActSizes& p, int64_t task) {
    const int64_t groups = (p.c + kChannelGroup - 1) / kChannelGroup;
    n = task / groups;
    begin = task % groups * kChannelGroup;
    size = smaller(kChannelGroup, p.c - begin);
  }
};

// Two arrays [C] that a band leaves behind.
template <class T, class Params>
CYCLEGAN_FAST_INLINE Acc<T>* partial(const Params& p, int64_t band) {
  return static_cast<Acc<T>*>(p.workspace) + 2 * band * p.c;
}

// Leaves mean and sum of squared deviations of each channel over the band. As in moments.h, sums
// are taken around the mean of the first eighth.
template <class T>
void band_statistics(const InstanceNormActFwdParams& p, int64_t task) {
  using A = Acc<T>;
  const Band band(p, task);
  const int64_t pixels = (band.end - band.begin) * p.w, first = (pixels + 7) / 8;
  const T* image = static_cast<const T*>(p.x) + band.n * p.h * p.w * p.c;
  const T* x = image + band.begin * p.w * p.c;
  A* mean = partial<T>(p, task);
  A* squares = mean + p.c;
  for_channels<T>(p.c, [&](auto block) {
    constexpr int kVectors = block.kVectors;
    Vec<T> around[kVectors] = {}, total[kVectors] = {}, total_squares[kVectors] = {};
    for (int64_t i = 0; i < first; ++i)
      for (int k = 0; k < kVectors; ++k) around[k] += block.load(x + i * p.c, k);
    for (int k = 0; k < kVectors; ++k) around[k] = around[k] / static_cast<A>(first);
    // Two levels of sums keep the rounding of thousands of additions small.
    for (int64_t begin = 0; begin < pixels; begin += 256) {
      const int64_t end = smaller(begin + 256, pixels);
      Vec<T> sum[kVectors] = {}, sum_squares[kVectors] = {};
      for (int64_t i = begin; i < end; ++i) {
        for (int k = 0; k < kVectors; ++k) {
          const Vec<T> deviation = block.load(x + i * p.c, k) - around[k];
          sum[k] += deviation;
          sum_squares[k] += deviation * deviation;
        }
      }
      for (int k = 0; k < kVectors; ++k) {
        total[k] += sum[k];
        total_squares[k] += sum_squares[k];
      }
    }
    for (int k = 0; k < kVectors; ++k) {
      const Vec<T> shift = total[k] / static_cast<A>(pixels);
      block.store(mean, k, around[k] - block.load(image, k) + shift);
      block.store(squares, k, total_squares[k] - total[k] * shift);
    }
  });
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
CYCLEGAN_FAST_INLINE void write_pixels(const InstanceNormActFwdParams& p, int64_t n, const T* x,
                                       Row<T> residual, T* y) {
  const Activation<T> act(p);
  for_channels<T>(p.c, [&](auto block) {
    constexpr int kVectors = block.kVectors;
    Affine<T> affine[kVectors];
    for (int k = 0; k < kVectors; ++k) affine[k] = channel_affine<T>(p, n, block, k);
    for (int64_t w = 0; w < p.w; ++w) {
      for (int k = 0; k < kVectors; ++k) {
        Vec<T> value = act(affine[k](block.load(x + w * p.c, k) - affine[k].mean));
        if (kResidual) value += block.load(residual.data + w * residual.pixel, k);
        block.store(y + w * p.c, k, value);
      }
    }
  });
}

template <class T>
void write_row(const InstanceNormActFwdParams& p, int64_t task, T* scratch) {
  const int64_t n = task / p.h, h = task % p.h, row_size = (p.w + 2 * p.pad) * p.c;
  const T* x = static_cast<const T*>(p.x) + task * p.w * p.c;
  T* image = static_cast<T*>(p.y) + n * (p.h + 2 * p.pad) * row_size;
  T* row = image + (h + p.pad) * row_size + p.pad * p.c;
  if (p.residual.data) {
    write_pixels<T, true>(p, n, x, strided_row(p.residual, n, 0, h, p.w, p.c, scratch), row);
  } else {
    write_pixels<T, false>(p, n, x, {}, row);
  }
  mirror_columns(row, p.w, p.c, p.pad);
  mirror_rows(image, h, p.h, row_size, p.pad);
}

// Leaves the sums of dz and of dz * (x - mean) over the band.
template <class T>
void band_sums(const InstanceNormActBwdParams& p, int64_t task, const GradientScratch<T>& scratch) {
  const Activation<T> act(p);
  const Band band(p, task);
  Acc<T>* dz_sum = partial<T>(p, task);
  Acc<T>* product_sum = dz_sum + p.c;
  for (int64_t c = 0; c < p.c; ++c) dz_sum[c] = product_sum[c] = 0;
  for (int64_t h = band.begin; h < band.end; ++h) {
    const T* x = static_cast<const T*>(p.x) + (band.n * p.h + h) * p.w * p.c;
    with_gradient(p, band.n, h, scratch, [&](int64_t begin, int64_t end, auto g) {
      for_channels<T>(p.c, [&](auto block) {
        constexpr int kVectors = block.kVectors;
        Affine<T> affine[kVectors];
        for (int k = 0; k < kVectors; ++k) affine[k] = channel_affine<T>(p, band.n, block, k);
        Vec<T> sum[kVectors] = {}, products[kVectors] = {};
        for (int64_t w = begin; w < end; ++w) {
          for (int k = 0; k < kVectors; ++k) {
            const Vec<T> deviation = block.load(x + w * p.c, k) - affine[k].mean;
            const Vec<T> gradient = block.load(g.data + (w - begin) * g.pixel, k);
            const Vec<T> dz = act.gradient(gradient, affine[k](deviation));
            sum[k] += dz;
            products[k] += dz * deviation;
          }
        }
        for (int k = 0; k < kVectors; ++k) {
          block.store(dz_sum, k, block.load(dz_sum, k) + sum[k]);
          block.store(product_sum, k, block.load(product_sum, k) + products[k]);
        }
      });
    });
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
                        const GradientScratch<T>& scratch) {
  const Activation<T> act(p);
  using A = Acc<T>;
  const int64_t n = task / p.h, h = task % p.h;
  const T* x = static_cast<const T*>(p.x) + task * p.w * p.c;
  T* grad_x = static_cast<T*>(p.grad_x) + task * p.w * p.c;
  const A* sums = static_cast<const A*>(p.sums) + n * p.c;
  const A* rstd = static_cast<const A*>(p.rstd) + n * p.c;
  const A per_pixel = static_cast<A>(1 / static_cast<double>(p.h * p.w));
  const auto write = [&](int64_t begin, int64_t end, auto g) {
    for_channels<T>(p.c, [&](auto block) {
      constexpr int kVectors = block.kVectors;
      Affine<T> affine[kVectors];
      Vec<T> dz_mean[kVectors], product_mean[kVectors];
      for (int k = 0; k < kVectors; ++k) {
        affine[k] = channel_affine<T>(p, n, block, k);
        dz_mean[k] = block.load(sums, k) * per_pixel;
        product_mean[k] = block.load(sums + p.n * p.c, k) * block.load(rstd, k) * per_pixel;
      }
      for (int64_t w = begin; w < end; ++w) {
        for (int k = 0; k < kVectors; ++k) {
          const Vec<T> deviation = block.load(x + w * p.c, k) - affine[k].mean;
          const Vec<T> gradient = block.load(g.data + (w - begin) * g.pixel, k);
          const Vec<T> dz = act.gradient(gradient, affine[k](deviation));
          block.store(grad_x + w * p.c, k,
                      affine[k].scale * (dz - dz_mean[k] - deviation * product_mean[k]));
        }
      }
    });
  };
  if (p.grad_residual) {
    write(0, p.w, Row<T>{static_cast<const T*>(p.grad_residual) + task * p.w * p.c, p.c});
  } else {
    with_gradient(p, n, h, scratch, write);
  }
}

void statistics(const InstanceNormActFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    for (int64_t task = begin; task < end; ++task) band_statistics<decltype(type)>(p, task);
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
    const Scratch<decltype(type)> scratch(p.w * p.c);
    for (int64_t task = end - 1; task >= begin; --task) write_row<decltype(type)>(p, task, scratch);
  });
}

void sums(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    const GradientScratch<decltype(type)> scratch(p);
    for (int64_t task = begin; task < end; ++task) band_sums(p, task, scratch);
  });
}

void merge_sums(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    for (int64_t task = begin; task < end; ++task) merge_band_sums<decltype(type)>(p, task);
  });
}

void write_gradient(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    const GradientScratch<decltype(type)> scratch(p);
    for (int64_t task = end - 1; task >= begin; --task) write_gradient_row(p, task, scratch);
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(InstanceNormActNhwcKernels, instance_norm_act_nhwc) = {
    .statistics = statistics,
    .merge_statistics = merge_statistics,
    .write = write,
    .sums = sums,
    .merge_sums = merge_sums,
    .write_gradient = write_gradient};

}  // namespace cyclegan_fast
