// SPDX-License-Identifier: MIT
// pool_exchange: tensors checked and turned into params, for the CPU and the CUDA side alike.
#pragma once

#include "common/check.h"
#include "ops/pool_exchange.h"

namespace cyclegan_fast {

inline PoolExchangeParams pool_exchange_args(const Tensor& rows, const Tensor& pictures,
                                             const Tensor& take, const Tensor& put,
                                             const Tensor& shown) {
  const Checker check("pool_exchange_fwd", rows);
  const Dtype dtype = check.dtype("rows", rows);
  const Layout layout = check.layout("rows", rows);
  const auto sizes = rows.sizes();
  check.four_dimensions("pictures", pictures);
  const int64_t n = pictures.sizes()[0], c = sizes[1], h = sizes[2], w = sizes[3];
  if (sizes[0] < 2) check.fail("rows", "of at least two pictures", list_text(sizes));
  check.image("pictures", pictures, {n, c, h, w}, dtype, layout);
  check.image("shown", shown, {n, c, h, w}, dtype, layout);
  check.whole_contiguous("take", take, {n}, ScalarType::Long);
  check.whole_contiguous("put", put, {n}, ScalarType::Long);
  return {.dtype = dtype,
          .n = n,
          .size = sizes[0] - 1,
          .elements = c * h * w,
          .take = static_cast<const int64_t*>(data(take)),
          .put = static_cast<const int64_t*>(data(put)),
          .pictures = data(pictures),
          .rows = mutable_data(rows),
          .shown = mutable_data(shown)};
}

}  // namespace cyclegan_fast
