// SPDX-License-Identifier: MIT
// A few cache lines that a kernel works in. Anonymous namespace: see vec.h.
#pragma once

#include <cstdlib>

#include "common/vec.h"

namespace cyclegan_fast {
namespace {

// Uninitialised, aligned to a cache line, freed at the end of the scope.
template <class T>
class Scratch {
 public:
  CYCLEGAN_FAST_INLINE explicit Scratch(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    data_ = static_cast<T*>(std::aligned_alloc(kLine, (bytes + kLine) / kLine * kLine));
    if (!data_) std::abort();  // a few kilobytes: nothing can go on without them
  }
  CYCLEGAN_FAST_INLINE ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  CYCLEGAN_FAST_INLINE operator T*() const { return data_; }

 private:
  static constexpr size_t kLine = 64;
  T* data_;
};

}  // namespace
}  // namespace cyclegan_fast
