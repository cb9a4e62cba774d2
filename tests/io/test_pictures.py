# SPDX-License-Identifier: MIT
"""Pictures written: exact levels, whole files, tables of pictures."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.io import pictures


def test_levels_are_rounded_and_clipped():
    x = torch.tensor([-1.5, -1.0, -0.999, 0.0, 0.5, 1.0, 2.0]).view(1, 1, 7)
    assert pictures.to_uint8(x)[0, :, 0].tolist() == [0, 0, 0, 128, 191, 255, 255]
    every = torch.arange(256) / 127.5 - 1
    assert pictures.to_uint8(every.view(1, 1, 256))[0, :, 0].tolist() == list(range(256))
    assert pictures.to_uint8(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".ppm", ".tif", ".TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_keep_every_level(ending, channels):
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, channels), dtype=np.uint8)
    with Image.open(io.BytesIO(pictures.encode(picture, ending))) as image:
        assert image.mode == ("L" if channels == 1 else "RGB")
        assert np.array_equal(np.array(image).reshape(picture.shape), picture)


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_stay_close(ending):
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(90)), axis=-1)
    with Image.open(io.BytesIO(pictures.encode(picture, ending))) as image:
        assert np.abs(np.array(image).astype(int) - picture).mean() < 3


def test_what_is_no_picture_is_refused():
    for shape in ((4, 4), (4, 4, 2), (4, 4, 4)):
        with pytest.raises(ValueError, match="must be"):
            pictures.encode(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="ending must be one of"):
        pictures.encode(np.zeros((4, 4, 3), np.uint8), ".gif")


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    assert pictures.write_bytes(path, b"one")
    assert not pictures.write_bytes(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"

    def refuse(*_):
        raise OSError(28, "No space left on device")

    for name in ("replace", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            if name == "replace":
                with pytest.raises(OSError, match="No space"):
                    pictures.write_bytes(path, b"three")
            else:  # a file system without hard links
                assert not pictures.write_bytes(path, b"three", overwrite=False)
                assert pictures.write_bytes(tmp_path / "b.png", b"b", overwrite=False)
        assert path.read_bytes() == b"one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]
    longest = tmp_path / ("x" * 251 + ".png")
    assert pictures.write_bytes(longest, b"y") and longest.read_bytes() == b"y"


def test_a_sheet_shows_every_picture_in_its_place():
    rows = [[torch.full((3, 16, 16), level) for level in (-1.0, 0.0, 1.0)] for _ in range(2)]
    rows[1][1] = torch.full((1, 16, 16), 1.0)  # grey beside colour
    sheet = pictures.sheet(["a", "b", "c"], rows, gap=4, scale=2)
    top = sheet.shape[0] - 2 * 36
    centres = [[sheet[top + 16 + 36 * i, 4 + 16 + 36 * j] for j in range(3)] for i in range(2)]
    assert [[int(c.mean()) for c in row] for row in centres] == [[0, 128, 255], [0, 255, 255]]
    assert sheet[:top].min() < 100  # the headings
