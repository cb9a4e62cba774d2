// SPDX-License-Identifier: MIT
// From a type known at run time to a template argument.
#pragma once

#include "common/dtype.h"
#include "common/vector.cuh"

namespace cyclegan_fast {

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls function(TypeTag<T>{}) with the element type T.
template <typename Function>
auto with_type(Dtype dtype, const Function& function) {
  switch (dtype) {
    case Dtype::kFloat16:
      return function(TypeTag<half>{});
    case Dtype::kBFloat16:
      return function(TypeTag<bfloat16>{});
    case Dtype::kFloat32:
      return function(TypeTag<float>{});
    default:
      return function(TypeTag<double>{});
  }
}

}  // namespace cyclegan_fast
