# SPDX-License-Identifier: MIT
"""augment makes the very values of Pillow, ToTensor and Normalize, over every back end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.data import Preprocess, to_tensor
from cyclegan_fast.ops import PackedPictures, augment, augment_reference
from cyclegan_fast.ops.augment.packed import bicubic_taps

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# (height, width) in the file and when scaled: enlarged, shrunk, left alone, one axis only, far.
SIZES = [((9, 7), (11, 11)), ((23, 31), (11, 12)), ((13, 13), (13, 13)), ((11, 30), (11, 13))]
SIZES += [((1, 1), (12, 11)), ((2, 25), (14, 11))]


def pictures_of(sizes, channels, seed=0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = [rng.integers(0, 256, (h, w, channels), dtype=np.uint8) for (h, w), _ in sizes]
    # Sharp edges, where Pillow's filter overshoots and clips between its two passes.
    made[0] = np.where(made[0] > 127, 255, 0).astype(np.uint8)
    made[1] = np.where(made[1] > 127, 255, 0).astype(np.uint8)
    return made


def packed(channels=3, device="cpu", sizes=SIZES) -> PackedPictures:
    scaled = [size for _, size in sizes]
    return PackedPictures.pack(pictures_of(sizes, channels), scaled).to(device)


def picks_of(*rows, device="cpu") -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64, device=device).view(-1, 4)


PICKS = [(0, 0, 1, 0), (1, 1, 0, 1), (2, 3, 3, 1), (3, 1, 2, 0), (4, 2, 1, 1), (5, 4, 0, 0)]


def pillows(picture: np.ndarray, scaled, pick, size) -> torch.Tensor:
    """What upstream's data pipeline makes of it, in Pillow's words."""
    _, top, left, mirrored = pick
    grey = picture.shape[2] == 1
    image = Image.fromarray(picture[..., 0] if grey else picture)
    image = image.resize((scaled[1], scaled[0]), Image.Resampling.BICUBIC)
    image = image.crop((left, top, left + size[1], top + size[0]))
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image).reshape(*size, picture.shape[2])
    return to_tensor([pixels])[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_equals_pillow_to_the_bit(each_backend, device, channels, layout):
    made = augment(
        packed(channels, device), picks_of(*PICKS, device=device), (10, 9), memory_format=layout
    )
    files = pictures_of(SIZES, channels)
    for picture, (_, scaled), pick, ours in zip(files, SIZES, PICKS, made.cpu(), strict=True):
        assert torch.equal(ours, pillows(picture, scaled, pick, (10, 9)))
    assert made.is_contiguous(memory_format=layout)


LENGTHS = [(256, 286), (286, 256), (100, 286), (1024, 286), (3, 200)]
LENGTHS += [(200, 3), (640, 287), (1, 5), (5, 1), (255, 286)]


@pytest.mark.parametrize("size, scaled", LENGTHS)
def test_taps_are_pillows(size, scaled):
    picture = np.random.default_rng(size).integers(0, 256, (4, size), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(picture).resize((scaled, 4), Image.Resampling.BICUBIC))
    taps = bicubic_taps(size, scaled).astype(np.int64)
    columns = np.minimum(taps[:, :1] + np.arange(taps.shape[1] - 1), size - 1)
    total = (picture[:, columns] * taps[:, 1:]).sum(2) + (1 << 21)
    assert np.array_equal((total >> 22).clip(0, 255), expected)


def test_all_of_256_levels_are_what_the_loader_makes(each_backend, device):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    pictures = PackedPictures.pack([levels], [(16, 16)]).to(device)
    made = augment(pictures, picks_of((0, 0, 0, 0), device=device), (16, 16))
    assert torch.equal(made.cpu(), to_tensor([levels]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("channels", [2, 3])
def test_equals_the_reference(each_backend, device, dtype, layout, channels):
    pictures, picks = packed(channels, device), picks_of(*PICKS, device=device)
    for size in ((11, 11), (1, 1), (7, 2)):
        ours = augment(pictures, picks, size, dtype, layout)
        theirs = augment_reference(pictures, picks, size, dtype, layout)
        assert ours.dtype == dtype and torch.equal(ours, theirs)
        assert ours.is_contiguous(memory_format=layout)


def test_numbers_out_of_range_are_moved_to_the_nearest_inside(each_backend, device):
    pictures = packed(3, device)
    far = picks_of((-(2**40), -1, -9, 0), (2**40, 2**40, 2**40, -7), device=device)
    near = picks_of((0, 0, 0, 0), (5, 4, 2, 1), device=device)
    assert torch.equal(augment(pictures, far, (10, 9)), augment(pictures, near, (10, 9)))


def test_ten_runs_and_a_batch_of_none(each_backend, device):
    pictures, picks = packed(3, device), picks_of(*PICKS[:2], device=device)
    first = augment(pictures, picks, (8, 8))
    for _ in range(10):
        assert torch.equal(augment(pictures, picks, (8, 8)), first)
    assert augment(pictures, picks[:0], (8, 8)).shape == (0, 3, 8, 8)


def test_opcheck_and_compile(fused_backend, device):
    pictures, picks = packed(3, device), picks_of(*PICKS, device=device)
    torch.library.opcheck(
        torch.ops.cyclegan_fast.augment.default,
        (pictures.levels, pictures.table, pictures.taps, picks, [3, 8, 7], torch.bfloat16, True,
         fused_backend),
    )  # fmt: skip

    def batch(picks):
        return augment(pictures, picks, (8, 7), torch.bfloat16, torch.channels_last)

    torch._dynamo.reset()
    compiled = torch.compile(batch, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(picks), batch(picks))


def test_what_preprocess_makes_is_the_same():
    preprocess = Preprocess(11, 8)
    picture = pictures_of(SIZES, 3)[1]
    pixels = preprocess.crop_and_flip(preprocess.resize(picture), (0.9, 0.4), True)
    ours = augment(PackedPictures.pack([picture], [(11, 11)]), picks_of((0, 3, 1, 1)), (8, 8))
    assert torch.equal(ours, to_tensor([pixels]))


PAIR = [np.zeros((4, 5, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)]


@pytest.mark.parametrize(
    ("pictures", "scaled", "error", "message"),
    [
        ([], [], ValueError, "pictures must be one or more"),
        (PAIR, [(4, 4)], ValueError, "got 2 and 1 sizes"),
        ([PAIR[0].astype(np.int32)], [(4, 4)], TypeError, "pictures must be uint8"),
        ([PAIR[0], PAIR[1][..., :1]], [(4, 4)] * 2, ValueError, "with C = 3"),
        ([PAIR[0][:0]], [(4, 4)], ValueError, "not empty"),
        ([PAIR[0]], [(0, 4)], ValueError, "scaled must be 1 x 1 or more"),
    ],
)
def test_what_cannot_be_packed_is_named(pictures, scaled, error, message):
    with pytest.raises(error, match=f"^augment: .*{message}"):
        PackedPictures.pack(pictures, scaled)


ONE = picks_of((0, 0, 0, 0))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"pictures": ONE}, TypeError, "pictures must be PackedPictures"),
        ({"picks": ONE.int()}, TypeError, "picks must be an int64 tensor"),
        ({"picks": [[0, 0, 0, 0]]}, TypeError, "picks must be an int64 tensor"),
        ({"picks": ONE[:, :3]}, ValueError, r"picks must be contiguous \[N, 4\]"),
        ({"picks": ONE[0]}, ValueError, r"picks must be contiguous \[N, 4\]"),
        ({"picks": ONE.to("meta")}, ValueError, "picks must be on pictures' device"),
        ({"size": (5, 4)}, ValueError, "size must be within 1 x 1 and the smallest scaled"),
        ({"size": (0, 4)}, ValueError, "size must be within 1 x 1"),
        ({"size": 4}, TypeError, r"size must be \(height, width\)"),
        ({"size": (4.0, 4)}, TypeError, "size must be two whole numbers"),
        ({"dtype": torch.int8}, TypeError, "dtype must be float16"),
        ({"memory_format": torch.preserve_format}, ValueError, "memory_format must be"),
    ],
)
def test_wrong_arguments_are_named(changed, error, message):
    given = {"pictures": PackedPictures.pack(PAIR, [(4, 5), (9, 8)]), "picks": ONE, "size": (4, 4)}
    with pytest.raises(error, match=f"^augment: {message}"):
        augment(**(given | changed))
