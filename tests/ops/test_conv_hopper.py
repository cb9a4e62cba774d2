# SPDX-License-Identifier: MIT
"""When Hopper's convolution is taken, and how it is cut; what it computes: tests/emulator."""

from __future__ import annotations

import pytest
import torch

from cyclegan_fast import _extension
from cyclegan_fast.ops.reflect_conv2d import cuda_hopper as hopper
from cyclegan_fast.ops.reflect_conv2d import measured, table
from cyclegan_fast.ops.reflect_conv2d.layers import DIRECTIONS, Layer

TRUNK = (256, 256, 3, 3)
CUDA = torch.device("cuda", 0)


@pytest.fixture
def here(monkeypatch):
    """As if this device were one that it is made for."""
    monkeypatch.setattr(hopper, "_why_not_on", lambda _device: None)


def layer(**other):
    x, weight = (
        torch.zeros(shape, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        for shape in ((1, 64, 5, 6), (64, 64, 3, 3))
    )
    return Layer(x, weight, **other)


def test_what_is_refused(here):
    x, weight = layer()[:2]
    assert hopper.why_not(x, weight, 0, 1) is None
    assert hopper.why_not(x.half(), weight.half(), 0, 1) is None
    for arguments, reason in [
        ((x, weight, 1, 1), "padded already"),
        ((x, weight, 0, 2), "stride"),
        ((x, weight[:, :, :2], 0, 1), "3x3"),
        ((x.float(), weight, 0, 1), "float32"),
        ((x, weight[:32], 0, 1), "multiples of 64"),
        ((x, weight[:, :48], 0, 1), "multiples of 64"),
        ((x.contiguous(), weight, 0, 1), "channels_last"),
        ((x, weight.contiguous(), 0, 1), "channels_last"),
        ((x.expand(-1, -1, -1, 6).repeat(1, 1, 1, 100), weight, 0, 1), "channels_last"),
    ]:
        assert reason in hopper.why_not(*arguments)
    for sides, reason in [((3, 513), "512 pixels wide"), ((2**22, 512), "1073741824 pixels")]:
        far = torch.empty(1, 64, *sides, device="meta", dtype=x.dtype)
        far = far.to(memory_format=torch.channels_last)
        assert reason in hopper.why_not(far, weight, 0, 1)


def test_where_it_runs(monkeypatch):
    why_not = hopper._why_not_on.__wrapped__
    assert "capability 9.0" in why_not(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (10, 0))
    assert "this GPU's is (10, 0)" in why_not(CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(_extension, "cuda_available", lambda: False)
    monkeypatch.setattr(_extension, "why_not_cuda", lambda: "there is no nvcc")
    assert why_not(CUDA) == "there is no nvcc"
    monkeypatch.setattr(_extension, "cuda_available", lambda: True)
    for architectures, reason in [
        (["80-real", "90"], "named no 9.0"),
        (["90-real", "90a-real"], None),
    ]:
        info = {"cuda_architectures": architectures}
        monkeypatch.setattr(_extension, "build_info", lambda info=info: info)
        assert (reason or "None") in str(why_not(CUDA))


def test_it_is_taken_where_it_is_chosen_and_nowhere_else(here):
    assert "hopper" in measured.NAMES
    assert not any("hopper" in row.order for row in table.TABLE)
    with table.choosing(lambda _layer, _direction: "hopper"):
        for direction in DIRECTIONS:
            assert table.choose(direction, "auto", layer()) == "hopper"
        # It is not made for another stride.
        assert table.choose("forward", "auto", layer(stride=2)) == "library"
        assert table.choose("forward", "auto", layer(kind="zeros")) == "library"
        assert table.choose("forward", "native", layer()) == "library"


def test_real_tiles_and_chunks():
    # One image through each network is a block for each of 132 multiprocessors.
    assert hopper.moments_cover((1, 256, 66, 66), TRUNK, 0, 1) == (33, 128, 66)
    # Of four, tiles of twice the size have work enough for all.
    assert hopper.moments_cover((4, 256, 66, 66), TRUNK, 0, 1) == (17, 256, 66)
    assert hopper.moments_cover((1, 256, 130, 130), TRUNK, 0, 1) == (44, 384, 130)
    assert hopper.sums_chunks((1, 256, 66, 66), TRUNK, 0, 1) == 35
    # With the border folded it has no rows of its own, and tiles are shorter.
    assert hopper.sums_chunks((1, 256, 64, 64), TRUNK, 1, 1) == 34
    folded = hopper._tile(8, 4224, 66, 256, chunked=False, folded=True)
    assert folded == hopper.Tile(128, 128, 126)
    assert hopper._tile(1, 4224, 66, 256, chunked=True) == hopper.Tile(128, 128, 128)
    assert hopper._tile(8, 4224, 66, 192, chunked=True) == hopper.Tile(128, 64, 128)
    assert hopper._tile(8, 16640, 130, 256, chunked=False) == hopper.Tile(128, 128, 128)
    assert hopper._tile(8, 4224, 66, 256, chunked=False) == hopper.Tile(256, 128, 256)


@pytest.mark.parametrize(
    ("n", "side", "weight_shape", "groups", "expected"),
    [
        # One image through each of two networks: 120 blocks of 132 multiprocessors.
        (1, 64, TRUNK, 1, (128, 13, 5)),
        (1, 128, TRUNK, 1, (128, 52, 5)),
        (2, 64, (64, 192, 3, 3), 1, (64, 19, 7)),
        # The nine layers alike of both are 216 blocks, and add nothing up.
        (9, 64, TRUNK, 9, (128, 64, 1)),
        # Of a small image a split would be written for longer than it is summed over.
        (1, 8, TRUNK, 1, (128, 4, 2)),
        (1, 1, TRUNK, 1, (128, 1, 1)),
    ],
)
def test_real_splits(n, side, weight_shape, groups, expected):
    out_shape = (n, weight_shape[0], side, side)
    split = hopper._split(out_shape, weight_shape[1], groups)
    assert split == expected
    partial = groups * weight_shape[0] * (weight_shape[1] * 9 + 1)
    assert hopper.workspace(out_shape, weight_shape, groups) == partial * (
        0 if split.splits == 1 else split.splits
    )
