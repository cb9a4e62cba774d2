# SPDX-License-Identifier: MIT
from cyclegan_fast.ops.augment.op import augment as augment
from cyclegan_fast.ops.augment.packed import PackedPictures as PackedPictures
from cyclegan_fast.ops.augment.reference import augment_reference as augment_reference
