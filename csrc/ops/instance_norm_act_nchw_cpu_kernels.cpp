// SPDX-License-Identifier: MIT
// instance_norm_act on the CPU, contiguous layout; compiled once per instruction set. One thread
// takes a plane through all its passes, so that those after the first find it in the cache.
#include "common/moments.h"
#include "common/rows.h"
#include "common/scratch.h"
#include "common/unit.h"
#include "ops/instance_norm_act_cpu_kernels.h"
#include "ops/instance_norm_act_math.h"

namespace cyclegan_fast {
namespace {

template <class T, class Params>
CYCLEGAN_FAST_INLINE Affine<T> plane_affine(const Params& p, int64_t plane) {
  using A = Acc<T>;
  const int64_t c = plane % p.c;
  return {broadcast<A>(static_cast<const A*>(p.mean)[plane]),
          broadcast<A>(static_cast<const A*>(p.rstd)[plane] * channel_value<A>(p.weight, c, 1)),
          broadcast<A>(channel_value<A>(p.bias, c, 0))};
}

// A plane as rows; without a pad it is one long row, if the strided operand allows: no tails.
struct PlaneShape {
  int64_t height, width;

  CYCLEGAN_FAST_INLINE PlaneShape(const InstanceNormActSizes& p, const Strided& operand)
      : height(p.h), width(p.w) {
    if (p.pad > 0 || (operand.data && (operand.w != 1 || operand.h != p.w))) return;
    height = 1;
    width = p.h * p.w;
  }
};

// y = act(norm(x)) + residual; residual may be null. soon: the same row of the next plane, whose
// first pass would read faster than memory gives.
template <class T, bool kResidual>
CYCLEGAN_FAST_INLINE void write_row(const T* x, const T* soon, const T* residual, T* y,
                                    int64_t count, const Affine<T>& affine,
                                    const Activation<T>& act) {
  const auto value = [&](Vec<T> v, Vec<T> r) {
    const Vec<T> a = act(affine(v - affine.mean));
    return kResidual ? a + r : a;
  };
  const auto write = [&](int64_t i) {
    prefetch_ahead_to_write(y + i);
    __builtin_prefetch(soon + i, 0, 2);
    if (kResidual) prefetch_ahead(residual + i);
    store(y + i, value(load(x + i), kResidual ? load(residual + i) : Vec<T>{}));
  };
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) write(i);
  if (i == count) return;
  if (count >= kLanes<T>) return write(count - kLanes<T>);  // some are written twice, alike
  const Vec<T> r = kResidual ? load_partial(residual, count) : Vec<T>{};
  store_partial(y, value(load_partial(x, count), r), count);
}

template <class T>
void forward(const InstanceNormActFwdParams& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const Activation<T> act(p);
  const auto [height, width] = PlaneShape(p, p.residual);
  const int64_t row_size = width + 2 * p.pad;
  const Scratch<T> scratch(width);
  for (int64_t plane = begin; plane < end; ++plane) {
    const T* x = static_cast<const T*>(p.x) + plane * height * width;
    T* y = static_cast<T*>(p.y) + plane * (height + 2 * p.pad) * row_size;
    if (!p.given) {
      const Moments found = moments(x, height * width);
      static_cast<A*>(p.mean)[plane] = static_cast<A>(found.mean);
      static_cast<A*>(p.rstd)[plane] = static_cast<A>(found.rstd(p.eps));
    }
    const Affine<T> affine = plane_affine<T>(p, plane);
    const T* soon = plane + 1 < end ? x + height * width : x;
    for (int64_t h = 0; h < height; ++h) {
      T* row = y + (h + p.pad) * row_size + p.pad;
      if (p.residual.data) {
        const Row<T> residual =
            strided_row<T>(p.residual, plane / p.c, plane % p.c, h, width, 1, scratch);
        write_row<T, true>(x + h * width, soon + h * width, residual.data, row, width, affine, act);
      } else {
        write_row<T, false>(x + h * width, soon + h * width, nullptr, row, width, affine, act);
      }
      mirror_columns(row, width, 1, p.pad);
      mirror_rows(y, h, height, row_size, p.pad);
    }
  }
}

// g = adjoint of the pad(grad_y) + grad_skip of one plane, row by row.
template <class T>
struct PlaneGradient {
  const InstanceNormActBwdParams& p;
  int64_t plane, height, width;
  const T* grad_y;  // of this plane, or null
  T* residual;      // of this plane, or null
  T* gathered;      // [width]
  Acc<T>* sum;      // [height, width]

  // Calls body(row): of T where g can be read in place, of Acc<T> where it is a sum. Where
  // grad_residual is asked for it is written first and then read: what goes to the residual and
  // what goes through the norm start from the same rounded values.
  template <class Body>
  CYCLEGAN_FAST_INLINE void first_time(int64_t h, const Body& body) const {
    with_row(h, [&](const auto* g) {
      if (!residual) return body(g);
      convert(residual + h * width, g, width);
      body(static_cast<const T*>(residual + h * width));
    });
  }

  // The same row again, without adding it up again.
  template <class Body>
  CYCLEGAN_FAST_INLINE void again(int64_t h, const Body& body) const {
    if (residual) return body(static_cast<const T*>(residual + h * width));
    if (grad_y && is_sum()) return body(static_cast<const Acc<T>*>(sum + h * width));
    with_row(h, body);
  }

 private:
  CYCLEGAN_FAST_INLINE bool is_sum() const { return p.grad_skip.data || p.pad > 0; }

  template <class Body>
  CYCLEGAN_FAST_INLINE void with_row(int64_t h, const Body& body) const {
    const T* skip = nullptr;
    if (p.grad_skip.data)
      skip = strided_row<T>(p.grad_skip, plane / p.c, plane % p.c, h, width, 1, gathered).data;
    if (!grad_y) return body(skip);
    if (!is_sum()) return body(grad_y + h * width);
    Acc<T>* row = sum + h * width;
    fold_row(grad_y, skip, h, height, width, p.pad, row);
    body(static_cast<const Acc<T>*>(row));
  }
};

// Sums of dz and of dz * (x - mean) over a plane. Lanes are summed in the accumulator's type and
// moved to float64 every few thousand values, so that the sums of a large plane stay exact.
template <class T>
class PlaneSums {
 public:
  double dz = 0, product = 0;

  template <class G>
  CYCLEGAN_FAST_INLINE void add_row(const T* x, const G* g, int64_t count, const Affine<T>& affine,
                                    const Activation<T>& act) {
    constexpr int64_t kStep = kLanes<T>;
    const auto add = [&](Vec<T> value, Vec<T> gradient, int k) {
      const Vec<T> deviation = value - affine.mean;
      const Vec<T> step = act.gradient(gradient, affine(deviation));
      dz_lanes_[k] += step;
      product_lanes_[k] += step * deviation;
    };
    for (int64_t begin = 0; begin < count; begin += kFlush) {
      const int64_t end = smaller(begin + kFlush, count);
      int64_t i = begin;
      for (; i + 4 * kStep <= end; i += 4 * kStep)
        for (int k = 0; k < 4; ++k) add(load(x + i + k * kStep), load(g + i + k * kStep), k);
      for (; i + kStep <= end; i += kStep) add(load(x + i), load(g + i), 0);
      // The lanes beyond the end have no gradient, so they add nothing.
      if (i < end) add(load_partial(x + i, end - i), load_partial(g + i, end - i), 1);
      pending_ += end - begin;
      if (pending_ >= kFlush) flush();
    }
  }

  CYCLEGAN_FAST_INLINE void flush() {
    const auto take = [](Vec<T>(&lanes)[4]) {
      const Vec<T> sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
      for (int k = 0; k < 4; ++k) lanes[k] = Vec<T>{};
      return sum_lanes<Acc<T>>(sum);
    };
    dz += take(dz_lanes_);
    product += take(product_lanes_);
    pending_ = 0;
  }

 private:
  static constexpr int64_t kFlush = 256 * kLanes<T>;
  Vec<T> dz_lanes_[4] = {}, product_lanes_[4] = {};  // chains enough to hide four cycles of latency
  int64_t pending_ = 0;
};

// grad_x = scale * (dz - dz_mean - (x - mean) * product_mean). soon_x, soon_g: of the next plane.
template <class T, class G>
CYCLEGAN_FAST_INLINE void write_gradient_row(const T* x, const T* soon_x, const G* g,
                                             const T* soon_g, T* grad_x, int64_t count,
                                             const Affine<T>& affine, const Activation<T>& act,
                                             Vec<T> dz_mean, Vec<T> product_mean) {
  const auto value = [&](Vec<T> v, Vec<T> gradient) {
    const Vec<T> deviation = v - affine.mean;
    const Vec<T> dz = act.gradient(gradient, affine(deviation));
    return affine.scale * (dz - dz_mean - deviation * product_mean);
  };
  const auto write = [&](int64_t i) {
    prefetch_ahead_to_write(grad_x + i);
    __builtin_prefetch(soon_x + i, 0, 2);
    __builtin_prefetch(soon_g + i, 0, 2);
    store(grad_x + i, value(load(x + i), load(g + i)));
  };
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) write(i);
  if (i == count) return;
  if (count >= kLanes<T>) return write(count - kLanes<T>);
  store_partial(grad_x, value(load_partial(x, count), load_partial(g, count)), count);
}

template <class T>
void backward(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const Activation<T> act(p);
  const auto [height, width] = PlaneShape(p, p.grad_skip);
  const int64_t plane_size = height * width;
  const int64_t padded_size = (height + 2 * p.pad) * (width + 2 * p.pad);
  const Scratch<T> gathered(width);
  const Scratch<A> sum(plane_size);
  for (int64_t plane = begin; plane < end; ++plane) {
    const auto of_plane = [plane](auto* tensor, int64_t size) {
      return tensor ? tensor + plane * size : nullptr;
    };
    const T* x = of_plane(static_cast<const T*>(p.x), plane_size);
    T* grad_x = of_plane(static_cast<T*>(p.grad_x), plane_size);
    const PlaneGradient<T> gradient = {p,
                                       plane,
                                       height,
                                       width,
                                       of_plane(static_cast<const T*>(p.grad_y), padded_size),
                                       of_plane(static_cast<T*>(p.grad_residual), plane_size),
                                       gathered,
                                       sum};
    const Affine<T> affine = plane_affine<T>(p, plane);

    PlaneSums<T> sums;
    for (int64_t h = 0; h < height; ++h) {
      gradient.first_time(
          h, [&](const auto* g) { sums.add_row(x + h * width, g, width, affine, act); });
    }
    sums.flush();
    const double rstd = static_cast<double>(static_cast<const A*>(p.rstd)[plane]);
    const double pixels = static_cast<double>(plane_size);
    static_cast<A*>(p.sums)[plane] = static_cast<A>(sums.dz);
    static_cast<A*>(p.sums)[p.n * p.c + plane] = static_cast<A>(sums.product * rstd);

    const Vec<T> dz_mean = broadcast<A>(static_cast<A>(sums.dz / pixels));
    const Vec<T> product_mean = broadcast<A>(static_cast<A>(sums.product * rstd * rstd / pixels));
    const bool more = plane + 1 < end;
    for (int64_t h = 0; h < height; ++h) {
      const T* row = x + h * width;
      const T* soon_x = more ? row + plane_size : row;
      const T* soon_g = soon_x;
      if (more && gradient.grad_y)
        soon_g = gradient.grad_y + padded_size + (h + p.pad) * (width + 2 * p.pad);
      gradient.again(h, [&](const auto* g) {
        write_gradient_row(row, soon_x, g, soon_g, grad_x + h * width, width, affine, act, dz_mean,
                           product_mean);
      });
    }
  }
}

void fwd(const InstanceNormActFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) { forward<decltype(type)>(p, begin, end); });
}

void bwd(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) { backward<decltype(type)>(p, begin, end); });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(InstanceNormActNchwKernels, instance_norm_act_nchw) = {.fwd = fwd,
                                                                                    .bwd = bwd};

}  // namespace cyclegan_fast
