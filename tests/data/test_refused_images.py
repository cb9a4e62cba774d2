# SPDX-License-Identifier: MIT
"""Damaged, foreign and hostile files: each is refused by name, and nothing worse happens."""

import os

import numpy as np
import pytest
from picture_files import PHOTO, RAMP, RNG, encoded, png

from cyclegan_fast.data import read_image
from cyclegan_fast.errors import BadImageError

# Pillow grumbles about damaged tags before it gives up, or does not.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

TRUNCATED = {
    "JPEG": {},
    "JPEG progressive": {"progressive": True},
    "PNG": {},
    "WEBP": {"lossless": True},
    "WEBP lossy": {},
    "TIFF": {},
    "TIFF deflate": {"compression": "tiff_deflate"},
    "BMP": {},
    "PPM": {},
}


@pytest.mark.parametrize("kind", TRUNCATED)
def test_a_file_cut_short_is_refused_at_every_point(put, kind):
    data = encoded(PHOTO, kind.split()[0], **TRUNCATED[kind])
    whole = read_image(put(data))
    refused = 0
    for cut in np.linspace(0, len(data) - 1, 20).astype(int):
        path = put(data[:cut], "cut.img")
        try:
            pixels = read_image(path)
        except BadImageError as error:
            refused += 1
            assert error.path == str(path) and error.reason and str(path) in str(error)
        else:  # what was cut off held no pixel: a closing mark, a checksum
            assert len(data) - cut <= 16 and np.array_equal(pixels, whole)
    assert refused >= 19


def test_damaged_bytes_give_a_picture_or_a_refusal_and_nothing_else(put):
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"):
        data = encoded(PHOTO, kind)
        for trial in range(60):
            damaged = bytearray(data)
            for place in RNG.integers(0, min(len(data), 400), 3):
                damaged[place] = RNG.integers(0, 256)
            try:
                assert read_image(put(bytes(damaged))).dtype == np.uint8, trial
            except BadImageError:
                pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<html><body>404</body></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        b"%PDF-1.4\n",
        b"SIMPLE  =                    T" + b" " * 2850,
        encoded(PHOTO, "GIF"),
        encoded(PHOTO, "ICO"),
    ],
    ids="empty text html eps pdf fits gif ico".split(),
)
def test_other_formats_are_refused_whatever_their_name(put, data):
    with pytest.raises(BadImageError, match="is no picture in a format of JPEG PNG WEBP BMP"):
        read_image(put(data))


def test_a_bomb_is_refused_before_it_is_decoded(put, monkeypatch):
    def never(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", never)
    # Headers of huge pictures; their bodies are next to nothing.
    with pytest.raises(BadImageError, match="has 8200 x 8200 pixels, more than the budget"):
        read_image(put(png(RAMP, 0, size=(8200, 8200))))
    with pytest.raises(BadImageError, match="too many pixels"):
        read_image(put(png(RAMP, 0, size=(60000, 60000))))
    with pytest.raises(BadImageError, match="raise max_pixels"):
        read_image(put(encoded(PHOTO, "PNG")), max_pixels=PHOTO.size // 3 - 1)
    monkeypatch.undo()
    assert read_image(put(encoded(PHOTO, "PNG")), max_pixels=PHOTO.size // 3).shape == PHOTO.shape


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, reason in (
        ("folder.jpg", "is not a file"),
        ("pipe.png", "is not a file"),
        ("dangling.png", "No such file"),
        ("loop.png", "symbolic links"),
        ("missing.png", "No such file"),
    ):
        with pytest.raises(BadImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert caught.value.path == str(tmp_path / name)


def test_a_file_without_permission_is_refused(put, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    path = put(encoded(PHOTO, "PNG"))
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(BadImageError, match="Permission denied"):
        read_image(path)


def test_wrong_arguments_are_named(put):
    path = put(encoded(PHOTO, "PNG"))
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 4"):
        read_image(path, channels=4)
    with pytest.raises(ValueError, match="background must be three of 0..255"):
        read_image(path, background=(0, 0, 256))
