# SPDX-License-Identifier: MIT
"""Pictures: finding, reading, transforming and batching them."""

from cyclegan_fast.data.folders import DomainFiles, list_images, scan
from cyclegan_fast.data.images import Picture, open_picture, read_image
from cyclegan_fast.data.loader import Loader
from cyclegan_fast.data.store import DataReport
from cyclegan_fast.data.transforms import Preprocess, to_tensor
from cyclegan_fast.data.unpaired import Batch, UnpairedDataset

__all__ = [
    "Batch",
    "DataReport",
    "DomainFiles",
    "Loader",
    "Picture",
    "Preprocess",
    "UnpairedDataset",
    "list_images",
    "open_picture",
    "read_image",
    "scan",
    "to_tensor",
]
