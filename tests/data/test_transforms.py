# SPDX-License-Identifier: MIT
"""Equality with upstream's pipeline, which is written down here once more in Pillow's words."""

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.data import Preprocess, to_tensor
from cyclegan_fast.data.transforms import MODES, TooSmallError

RNG = np.random.default_rng(1)


def upstream(image: Image.Image, mode, load, crop, grey, corner, mirror) -> np.ndarray:
    """data/base_dataset.py::get_transform with its random numbers given."""
    if grey:
        image = image.convert("L")
    if "resize" in mode:
        image = image.resize((load, load), Image.Resampling.BICUBIC)
    elif "scale_width" in mode:
        width, height = image.size
        if not (width == load and height >= crop):
            size = (load, int(max(load * height / width, crop)))
            image = image.resize(size, Image.Resampling.BICUBIC)
    if "crop" in mode:
        left, top = corner
        image = image.crop((left, top, left + crop, top + crop))
    if mode == "none":
        width, height = (int(round(side / 4) * 4) for side in image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling.BICUBIC)
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], 1 if grey else 3)


SIZES = [(40, 40), (37, 61), (61, 37), (33, 32), (128, 90), (35, 300), (32, 40), (20, 36)]


@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("load, crop", [(36, 32), (32, 32), (57, 31)])
def test_pixels_are_upstreams(mode, load, crop, grey):
    for height, width in SIZES:
        rgb = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if mode == "crop" and min(height, width) < crop:
            continue  # refused, see below
        image = Image.fromarray(rgb)
        pixels = np.asarray(image.convert("L"))[..., None] if grey else rgb
        preprocess = Preprocess(load, crop, mode)
        resized = preprocess.resize(pixels)
        assert resized.shape[:2] == preprocess.resized(height, width)
        for place in ((0.0, 0.0), (0.5, 0.9), (0.999999, 0.3)):
            top, left = (
                int(draw * (side - crop + 1))
                for draw, side in zip(place, resized.shape[:2], strict=True)
            )
            for mirror in (False, True):
                ours = preprocess.crop_and_flip(resized, place, mirror)
                theirs = upstream(image, mode, load, crop, grey, (left, top), mirror)
                assert np.array_equal(ours, theirs)
                if preprocess.crops:
                    assert ours.shape[:2] == (crop, crop)


def test_every_corner_is_reached_and_none_beyond():
    preprocess = Preprocess(12, 10, "resize_and_crop")
    marked = np.arange(144, dtype=np.uint8).reshape(12, 12, 1)
    corners = {
        int(preprocess.crop_and_flip(marked, (u, v), False)[0, 0, 0])
        for u in np.linspace(0, 1 - 2**-53, 50)
        for v in np.linspace(0, 1 - 2**-53, 50)
    }
    assert corners == {12 * row + column for row in range(3) for column in range(3)}


def test_a_picture_of_the_right_size_is_not_copied():
    pixels = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for mode in MODES:
        assert Preprocess(32, 32, mode).resize(pixels) is pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_tensor_is_that_of_totensor_and_normalize_to_the_bit(channels):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(channels, -1)
    batch = np.concatenate([levels, levels[:, ::-1]])
    expected = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()
    expected = expected.to(torch.float32).div(255).sub(0.5).div(0.5)
    for given in (batch, list(batch), [picture[:, ::-1][:, ::-1] for picture in batch]):
        made = to_tensor(given)
        assert made.dtype == torch.float32 and made.is_contiguous()
        assert torch.equal(made, expected)
    assert expected.min() == -1 and expected.max() == 1


def test_grey_levels_survive_the_way_there_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    back = ((to_tensor(levels) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(back[0, 0], torch.from_numpy(levels[0, ..., 0]))


def test_crop_larger_than_load_size_gives_the_values_to_take():
    for mode in ("resize_and_crop", "scale_width_and_crop"):
        with pytest.raises(ValueError, match="crop_size must be at most load_size") as caught:
            Preprocess(128, 256, mode)
        assert "--crop_size 128" in str(caught.value) and "--load_size 286" in str(caught.value)
    for mode in ("scale_width", "crop", "none"):  # here the two sizes do not meet
        Preprocess(128, 256, mode)


def test_crop_larger_than_the_picture_gives_the_value_to_take():
    with pytest.raises(TooSmallError, match="at most 30 for a picture of 40 x 30") as caught:
        Preprocess(286, 32, "crop").resized(30, 40)
    assert "--crop_size 30, or --preprocess resize_and_crop" in str(caught.value)
    assert caught.value.side == 30
    assert Preprocess(286, 30, "crop").resized(30, 40) == (30, 40)


def test_a_picture_that_would_vanish_is_refused():
    with pytest.raises(TooSmallError, match="at least 3 x 3, got 40 x 2"):
        Preprocess(mode="none").resized(2, 40)
    assert Preprocess(mode="none").resized(3, 41) == (4, 40)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"mode": "resize"}, "preprocess must be one of resize_and_crop, .*, got 'resize'"),
        ({"load_size": 0}, "load_size must be 1 or more, got 0"),
        ({"crop_size": -1}, "crop_size must be 1 or more, got -1"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        Preprocess(**options)
