// SPDX-License-Identifier: MIT
// generator_loss on the CPU; compiled once per instruction set.
#include "ops/generator_loss_cpu_kernels.h"

#include "common/chunks.h"
#include "common/unit.h"

namespace cyclegan_fast {
namespace {

CYCLEGAN_FAST_INLINE float tanh_of(float z) { return __builtin_tanhf(z); }
CYCLEGAN_FAST_INLINE double tanh_of(double z) { return __builtin_tanh(z); }

template <class T>
CYCLEGAN_FAST_INLINE Vec<T> tanh_of_lanes(Vec<T> z) {
  Acc<T> lanes[kLanes<T>];
  store(lanes, z);
  for (int64_t i = 0; i < kLanes<T>; ++i) lanes[i] = tanh_of(lanes[i]);
  return load(lanes);
}

// The terms of one chunk, as sum_chunk asks for them; gradients are written on the way.
template <class T, class Target, bool kTanh>
struct Compared {
  const T* made;
  const Target* target;
  T* grad;        // or null
  Acc<T> factor;  // of sign(d): weight * scale / numel

  CYCLEGAN_FAST_INLINE Vec<T> term(Vec<T> value, Vec<T> against, Vec<T>& gradient) const {
    if constexpr (kTanh) value = tanh_of_lanes<T>(value);
    const Vec<T> d = value - against, step = broadcast<Acc<T>>(factor);
    gradient = d > 0 ? step : d < 0 ? -step : Vec<T>{};
    if constexpr (kTanh) gradient *= 1 - value * value;
    return d < 0 ? -d : d;
  }
  CYCLEGAN_FAST_INLINE Vec<T> at(int64_t i) const {
    Vec<T> gradient;
    const Vec<T> value = term(load(made + i), load(target + i), gradient);
    if (grad) store(grad + i, gradient);
    return value;
  }
  CYCLEGAN_FAST_INLINE Vec<T> partial_at(int64_t i, int64_t count) const {
    Vec<T> gradient;
    const Vec<T> value =
        term(load_partial(made + i, count), load_partial(target + i, count), gradient);
    if (grad) store_partial(grad + i, gradient, count);
    return value;
  }
};

template <class T>
struct Judged {
  const T* made;
  T* grad;        // or null
  Acc<T> factor;  // of d: 2 scale / numel

  CYCLEGAN_FAST_INLINE Vec<T> at(int64_t i) const {
    const Vec<T> d = load(made + i) - 1;
    if (grad) store(grad + i, d * factor);
    return d * d;
  }
  CYCLEGAN_FAST_INLINE Vec<T> partial_at(int64_t i, int64_t count) const {
    const Vec<T> d = load_partial(made + i, count) - 1;
    if (grad) store_partial(grad + i, d * factor, count);
    return keep_first<Acc<T>>(d * d, count);
  }
};

template <class T, class Target>
void add_chunk(const GeneratorLossFwdParams& p, const GeneratorLossGroup& group, int64_t chunk) {
  using A = Acc<T>;
  const auto itself = [](Vec<T> value) { return value; };
  const A scale = p.scale ? *static_cast<const A*>(p.scale) : A(1);
  const A each = scale / static_cast<A>(group.numel);
  for (const GeneratorLossTerm& term : group.terms) {
    if (!term.made) continue;
    const T* made = static_cast<const T*>(term.made);
    T* grad = static_cast<T*>(term.grad);
    const auto sum = [&](const auto& elements) {
      return sum_chunk<T>(chunk, group.numel, elements, itself);
    };
    double found;
    if (!group.target) {
      found = sum(Judged<T>{made, grad, 2 * each});
    } else {
      const A factor = static_cast<const A*>(p.weights)[term.loss - kAdversarialTerms] * each;
      const Target* target = static_cast<const Target*>(group.target);
      found = p.tanh ? sum(Compared<T, Target, true>{made, target, grad, factor})
                     : sum(Compared<T, Target, false>{made, target, grad, factor});
    }
    static_cast<A*>(p.workspace)[term.partial + chunk] = static_cast<A>(found);
  }
}

void fwd(const GeneratorLossFwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t task = begin; task < end; ++task) {
      int64_t chunk = task;
      const GeneratorLossGroup* group = p.groups;
      for (; chunk >= group->chunks; ++group) chunk -= group->chunks;
      if (p.target_dtype == p.dtype) {
        add_chunk<T, T>(p, *group, chunk);
      } else {
        add_chunk<T, Acc<T>>(p, *group, chunk);
      }
    }
  });
}

template <class A>
void finish_terms(const GeneratorLossFwdParams& p) {
  A* losses = static_cast<A*>(p.losses);
  double total = 0;
  for (int i = 0; i < kGeneratorTerms; ++i) losses[i] = 0;
  for (const GeneratorLossGroup& group : p.groups) {
    for (const GeneratorLossTerm& term : group.terms) {
      if (!term.made) continue;
      const A* sums = static_cast<const A*>(p.workspace) + term.partial;
      double sum = 0;
      for (int64_t i = 0; i < group.chunks; ++i) sum += sums[i];
      double loss = sum / static_cast<double>(group.numel);
      if (group.target) loss *= static_cast<const A*>(p.weights)[term.loss - kAdversarialTerms];
      losses[term.loss] = static_cast<A>(loss);
      total += loss;
    }
  }
  if (p.scale) total *= *static_cast<const A*>(p.scale);
  *static_cast<A*>(p.total) = static_cast<A>(total);
}

void finish(const GeneratorLossFwdParams& p) {
  with_dtype(p.dtype, [&](auto type) { finish_terms<Acc<decltype(type)>>(p); });
}

void bwd(const GeneratorLossBwdParams& p, int64_t begin, int64_t end) {
  with_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    const Acc<T> factor = *static_cast<const Acc<T>*>(p.grad_total);
    for (int64_t task = begin; task < end; ++task) {
      int64_t chunk = task;
      const GeneratorLossScaled* term = p.terms;
      for (; chunk >= term->chunks; ++term) chunk -= term->chunks;
      const T* from = static_cast<const T*>(term->grad);
      T* to = static_cast<T*>(term->scaled);
      int64_t i = chunk * kLossChunk;
      const int64_t last = smaller(i + kLossChunk, term->numel);
      for (; i + kLanes<T> <= last; i += kLanes<T>) store(to + i, load(from + i) * factor);
      if (i < last) store_partial(to + i, load_partial(from + i, last - i) * factor, last - i);
    }
  });
}

}  // namespace

CYCLEGAN_FAST_DEFINE_KERNELS(GeneratorLossKernels, generator_loss) = {
    .fwd = fwd, .finish = finish, .bwd = bwd};

}  // namespace cyclegan_fast
