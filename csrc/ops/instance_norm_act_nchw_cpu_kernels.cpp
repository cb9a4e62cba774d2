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

// Without a pad a plane is one long row, if the strided operand allows: no tails.
template <class Params>
CYCLEGAN_FAST_INLINE bool is_flat(const Params& p, const Strided& s) {
  return p.pad == 0 && (!s.data || (s.w == 1 && s.h == p.w));
}

// y = act(norm(x)) + residual; residual may be null.
template <class T, bool kResidual>
CYCLEGAN_FAST_INLINE void write_row(const T* x, const T* residual, T* y, int64_t count,
                                    const Affine<T>& affine, Vec<T> slope) {
  const auto value = [&](Vec<T> v, Vec<T> r) {
    const Vec<T> a = activate<T>(affine(v - affine.mean), slope);
    return kResidual ? a + r : a;
  };
  const auto write = [&](int64_t i) {
    store(y + i, value(load(x + i), kResidual ? load(residual + i) : Vec<T>{}));
  };
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) write(i);
  if (i == count) return;
  if (count >= kLanes<T>) return write(count - kLanes<T>);  // some are written twice, alike
  store_partial(y,
                value(load_partial(x, count), kResidual ? load_partial(residual, count) : Vec<T>{}),
                count);
}

template <class T>
void forward(const InstanceNormActFwdParams& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t plane_size = p.h * p.w;
  const bool flat = is_flat(p, p.residual);
  const int64_t height = flat ? 1 : p.h, width = flat ? plane_size : p.w;
  const int64_t row_size = width + 2 * p.pad;
  const Vec<T> slope = broadcast<A>(static_cast<A>(activation_slope(p)));
  const Scratch<T> scratch(width);
  for (int64_t plane = begin; plane < end; ++plane) {
    const T* x = static_cast<const T*>(p.x) + plane * plane_size;
    T* y = static_cast<T*>(p.y) + plane * (height + 2 * p.pad) * row_size;
    const Moments found = moments(x, plane_size);
    static_cast<A*>(p.mean)[plane] = static_cast<A>(found.mean);
    static_cast<A*>(p.rstd)[plane] = static_cast<A>(found.rstd(p.eps));
    const Affine<T> affine = plane_affine<T>(p, plane);
    for (int64_t h = 0; h < height; ++h) {
      T* row = y + (h + p.pad) * row_size + p.pad;
      if (p.residual.data) {
        const T* residual =
            strided_row<T>(p.residual, plane / p.c, plane % p.c, h, width, 1, scratch).data;
        write_row<T, true>(x + h * width, residual, row, width, affine, slope);
      } else {
        write_row<T, false>(x + h * width, nullptr, row, width, affine, slope);
      }
      mirror_columns(row, width, 1, p.pad);
      mirror_rows(y, h, height, row_size, p.pad);
    }
  }
}

// Rows of g = adjoint of the pad(grad_y) + grad_skip of one plane.
template <class T>
struct GradientRows {
  const InstanceNormActBwdParams& p;
  int64_t plane, height, width;
  const T* grad_y;  // of this plane, or null
  T* gathered;      // [width]
  Acc<T>* sum;      // [width]

  // Calls body(row), a row of T where g can be read in place, of Acc<T> where it is a sum.
  template <class Body>
  CYCLEGAN_FAST_INLINE void with_row(int64_t h, const Body& body) const {
    const T* skip = nullptr;
    if (p.grad_skip.data)
      skip = strided_row<T>(p.grad_skip, plane / p.c, plane % p.c, h, width, 1, gathered).data;
    if (!grad_y) return body(skip);
    if (!skip && p.pad == 0) return body(grad_y + h * width);
    fold_row(grad_y, skip, h, height, width, p.pad, sum);
    body(static_cast<const Acc<T>*>(sum));
  }
};

// Sums of dz and of dz * (x - mean) over a plane. Lanes are summed in the element type's
// accumulator and moved to float64 every few thousand values, so that the sums of a large plane
// stay exact.
template <class T>
class PlaneSums {
 public:
  double dz = 0, product = 0;

  template <class G>
  CYCLEGAN_FAST_INLINE void add_row(const T* x, const G* g, int64_t count, const Affine<T>& affine,
                                    Vec<T> slope) {
    constexpr int64_t kStep = kLanes<T>;
    const auto add = [&](Vec<T> value, Vec<T> gradient, int k) {
      const Vec<T> deviation = value - affine.mean;
      const Vec<T> step = activation_gradient<T>(gradient, affine(deviation), slope);
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

// grad_x = scale * (dz - dz_mean - (x - mean) * product_mean).
template <class T, class G>
CYCLEGAN_FAST_INLINE void write_gradient_row(const T* x, const G* g, T* grad_x, int64_t count,
                                             const Affine<T>& affine, Vec<T> slope, Vec<T> dz_mean,
                                             Vec<T> product_mean) {
  const auto value = [&](Vec<T> v, Vec<T> gradient) {
    const Vec<T> deviation = v - affine.mean;
    const Vec<T> dz = activation_gradient<T>(gradient, affine(deviation), slope);
    return affine.scale * (dz - dz_mean - deviation * product_mean);
  };
  const auto write = [&](int64_t i) { store(grad_x + i, value(load(x + i), load(g + i))); };
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) write(i);
  if (i == count) return;
  if (count >= kLanes<T>) return write(count - kLanes<T>);
  store_partial(grad_x, value(load_partial(x, count), load_partial(g, count)), count);
}

template <class T>
void backward(const InstanceNormActBwdParams& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t plane_size = p.h * p.w;
  const bool flat = is_flat(p, p.grad_skip);
  const int64_t height = flat ? 1 : p.h, width = flat ? plane_size : p.w;
  const int64_t padded_size = (height + 2 * p.pad) * (width + 2 * p.pad);
  const Vec<T> slope = broadcast<A>(static_cast<A>(activation_slope(p)));
  const Scratch<T> gathered(width);
  const Scratch<A> sum(width);
  for (int64_t plane = begin; plane < end; ++plane) {
    const T* x = static_cast<const T*>(p.x) + plane * plane_size;
    const T* grad_y = p.grad_y ? static_cast<const T*>(p.grad_y) + plane * padded_size : nullptr;
    T* grad_x = static_cast<T*>(p.grad_x) + plane * plane_size;
    T* grad_residual =
        p.grad_residual ? static_cast<T*>(p.grad_residual) + plane * plane_size : nullptr;
    const GradientRows<T> rows = {p, plane, height, width, grad_y, gathered, sum};
    const Affine<T> affine = plane_affine<T>(p, plane);

    PlaneSums<T> sums;
    for (int64_t h = 0; h < height; ++h) {
      rows.with_row(h, [&](const auto* g) {
        if (!grad_residual) return sums.add_row(x + h * width, g, width, affine, slope);
        // What was written is what goes on: both gradients start from the same rounded values.
        convert(grad_residual + h * width, g, width);
        sums.add_row(x + h * width, grad_residual + h * width, width, affine, slope);
      });
    }
    sums.flush();
    const double rstd = static_cast<double>(static_cast<const A*>(p.rstd)[plane]);
    const double pixels = static_cast<double>(plane_size);
    static_cast<A*>(p.sums)[plane] = static_cast<A>(sums.dz);
    static_cast<A*>(p.sums)[p.n * p.c + plane] = static_cast<A>(sums.product * rstd);

    const Vec<T> dz_mean = broadcast<A>(static_cast<A>(sums.dz / pixels));
    const Vec<T> product_mean = broadcast<A>(static_cast<A>(sums.product * rstd * rstd / pixels));
    const auto write = [&](int64_t h, const auto* g) {
      write_gradient_row(x + h * width, g, grad_x + h * width, width, affine, slope, dz_mean,
                         product_mean);
    };
    for (int64_t h = height - 1; h >= 0; --h) {  // backwards: the last rows are in the cache still
      if (grad_residual) {
        write(h, static_cast<const T*>(grad_residual + h * width));
      } else {
        rows.with_row(h, [&](const auto* g) { write(h, g); });
      }
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
