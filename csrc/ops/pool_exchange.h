// SPDX-License-Identifier: MIT
// pool_exchange: what the torch side hands to a kernel.
//
//   shown[i] = rows[take[i]] as it was before, or pictures[take[i] - size]
//   then rows[put[i]] = pictures[i] with nan 0 and infinities +-1, where put[i] < size
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace cyclegan_fast {

// Pictures are read flat, in memory order.
struct PoolExchangeParams {
  Dtype dtype;
  int64_t n, size, elements;  // pictures of the batch, of the pool; values of a picture
  const int64_t* take;        // [N], in [0, size + N); what lies outside is moved to its ends
  const int64_t* put;         // [N], each row at most once; not in [0, size): nowhere
  const void* pictures;       // [N, elements]
  void* rows;                 // [size + 1, elements]; the last row is not touched
  void* shown;                // [N, elements]
};

}  // namespace cyclegan_fast
