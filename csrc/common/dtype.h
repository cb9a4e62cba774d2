// SPDX-License-Identifier: MIT
// The element types that the ops take, without a torch header: kernels see these names only.
#pragma once

namespace cyclegan_fast {

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64 };

}  // namespace cyclegan_fast
