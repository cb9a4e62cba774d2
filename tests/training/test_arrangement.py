# SPDX-License-Identifier: MIT
"""Up to which size `--merge auto` lets pictures go through a network together."""

import pytest
import torch

from cyclegan_fast.training import TrainConfig
from cyclegan_fast.training.arrangement import CACHED_BYTES, resolve_merge

GPU, CPU = torch.device("cuda"), torch.device("cpu")  # named, not used


def merged(device=GPU, itemsize=2, ordered=False, **options):
    return resolve_merge(TrainConfig(**options), device, itemsize, ordered=ordered)


@pytest.mark.parametrize(
    ("size", "batch", "itemsize", "expected"),
    [
        (256, 1, 2, True),  # 2 pictures of 64 channels: 16.8 MB
        (256, 8, 2, False),
        (512, 1, 2, False),
        (512, 8, 2, False),
        (256, 2, 2, False),
        (128, 4, 2, True),  # the same bytes as one of 256
        (256, 1, 4, False),  # fp32: 33.6 MB
        (216, 1, 4, True),
    ],
)
def test_auto_on_a_gpu_by_size(size, batch, itemsize, expected):
    assert merged(crop_size=size, batch_size=batch, itemsize=itemsize) is expected


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("ngf", [32, 64])
def test_its_bound_is_the_cached_bytes_of_two_batches(ngf, batch, itemsize):
    sizes = range(16, 1024, 4)
    taken = [
        size
        for size in sizes
        if merged(ngf=ngf, batch_size=batch, itemsize=itemsize, crop_size=size)
    ]
    fit = [size for size in sizes if 2 * batch * ngf * size**2 * itemsize <= CACHED_BYTES]
    assert taken == fit and 16 < len(fit) < len(sizes)


def test_the_bound_of_the_defaults_is_a_side_of_312():
    assert merged(crop_size=312) and not merged(crop_size=316)


def test_on_and_off_ask_for_no_size():
    assert merged(merge="on", crop_size=1024, batch_size=8)
    assert not merged(merge="off", crop_size=64)
    assert not merged(CPU, merge="off")


def test_a_cpu_merges_at_any_size():
    assert merged(CPU, itemsize=4, crop_size=1024, batch_size=8)


@pytest.mark.parametrize("device", [GPU, CPU], ids=str)
def test_where_order_is_part_of_the_result_auto_is_off_and_on_refused(device):
    assert not merged(device, ordered=True, crop_size=64)
    with pytest.raises(ValueError, match="--merge auto"):
        merged(device, ordered=True, crop_size=64, merge="on")
