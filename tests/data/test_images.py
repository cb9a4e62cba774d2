# SPDX-License-Identifier: MIT
"""The reading policy, row by row; `test_refused_images.py` has the rows of what is refused."""

import io
import struct

import numpy as np
import pytest
from picture_files import LEVELS, LOSSLESS, PHOTO, RAMP, RNG, chunk, encoded, png, tiff16
from PIL import Image

from cyclegan_fast.data import open_picture, read_image
from cyclegan_fast.errors import BadImageError

# Pillow grumbles about damaged tags before it gives up, or does not.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("shape", [(48, 64), (1, 1), (1, 300), (300, 1)])
def test_plain_rgb_comes_back_as_it_is(put, kind, shape):
    pixels = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    picture = open_picture(put(encoded(pixels, kind, **LOSSLESS[kind])))
    assert picture.pixels.dtype == np.uint8 and picture.notes == ()
    assert np.array_equal(picture.pixels, pixels)


def test_jpeg_is_what_pillow_decodes_progressive_too(put):
    for options in ({}, {"progressive": True}, {"subsampling": 0, "quality": 100}):
        data = encoded(PHOTO, "JPEG", **options)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(read_image(put(data, "a.jpg")), expected)


def test_the_name_does_not_decide_the_format(put):
    assert np.array_equal(read_image(put(encoded(PHOTO, "BMP"), "wrong.jpg")), PHOTO)


def test_grey_is_the_luma_of_the_rgb_picture(put):
    grey = read_image(put(encoded(PHOTO, "PNG")), channels=1)
    luma = (PHOTO.astype(np.float64) @ [0.299, 0.587, 0.114])[..., None]
    assert grey.shape == (48, 64, 1)
    assert abs(grey - luma).max() <= 0.51
    grey_file = put(encoded(LEVELS, "PNG"), "grey.png")
    assert np.array_equal(read_image(grey_file, channels=1)[..., 0], LEVELS)
    assert np.array_equal(read_image(grey_file), LEVELS[..., None].repeat(3, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(put, kind, orientation):
    corners = np.zeros((8, 16, 3), np.uint8)
    corners[:4, :8], corners[:4, 8:], corners[4:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # What a camera stores of this upright scene: the inverse of the turn a viewer must apply.
    stored = {
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.transpose(1, 0, 2),
        6: np.rot90(corners, 1),  # a viewer turns it clockwise
        7: corners[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(corners, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}}.get(kind, LOSSLESS.get(kind))
    data = encoded(np.ascontiguousarray(stored[orientation]), kind, exif=exif, **options)
    picture = open_picture(put(data))
    assert picture.pixels.shape == corners.shape
    assert abs(picture.pixels.astype(int) - corners).max() <= (4 if kind == "JPEG" else 0)
    if kind != "TIFF":  # there Pillow itself turns while decoding
        assert ("turned as EXIF says" in picture.notes) == (orientation != 1)


def test_damaged_exif_does_not_cost_the_picture(put):
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01"):
        assert read_image(put(encoded(PHOTO, "JPEG", exif=exif))).shape == PHOTO.shape


@pytest.mark.parametrize(
    "data",
    [
        png(RAMP, 0),
        encoded(RAMP, "TIFF"),
        encoded(RAMP.astype(">u2"), "TIFF"),
        encoded(RAMP.astype(np.int32), "TIFF"),
        b"P5 256 4 65535\n" + RAMP.astype(">u2").tobytes(),
        encoded((RAMP / 65535).astype(np.float32), "TIFF"),
        png(RAMP[..., None].repeat(3, -1), 2),
        tiff16(RAMP[..., None].repeat(3, -1)),
        b"P6 256 4 65535\n" + RAMP[..., None].repeat(3, -1).astype(">u2").tobytes(),
    ],
    ids="png16 tiff16 tiff16be tiff32 pgm16 float rgb-png16 rgb-tiff16 rgb-ppm16".split(),
)
def test_deep_pictures_keep_all_256_levels_and_say_so(put, data):
    picture = open_picture(put(data))
    assert np.array_equal(picture.pixels, LEVELS[..., None].repeat(3, -1))
    assert len(picture.notes) == 1 and picture.notes[0].startswith("scaled from ")


def test_deep_grey_is_rounded_and_deep_colour_is_within_one_level(put):
    deep = RNG.integers(0, 65536, (32, 32, 3), dtype=np.uint16)
    exact = deep * (255 / 65535)
    assert abs(read_image(put(png(deep[..., 0], 0)))[..., 0] - exact[..., 0]).max() <= 0.5
    assert abs(read_image(put(png(deep, 2))) - exact).max() < 1


@pytest.mark.parametrize(
    "pixels, reason",
    [
        (np.full((2, 2), 2.5, np.float32), "values 2.5 to 2.5"),
        (np.full((2, 2), -0.1, np.float32), "0 to 1 can be read"),
        (np.full((2, 2), np.nan, np.float32), "values nan to nan"),
        (np.full((2, 2), 65536, np.int32), "values 65536 to 65536"),
        (np.full((2, 2), -1, np.int32), "0 to 65535 can be read"),
    ],
)
def test_a_depth_without_a_known_white_is_refused(put, pixels, reason):
    with pytest.raises(BadImageError, match=reason):
        read_image(put(encoded(pixels, "TIFF")))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 128, 255)])
def test_alpha_is_composited_over_the_background(put, background):
    rgba = RNG.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    rgba[0, 0] = (255, 0, 0, 0)  # a hidden colour, which upstream would show
    alpha = rgba[..., 3:] / 255
    exact = rgba[..., :3] * alpha + np.array(background) * (1 - alpha)
    picture = open_picture(put(encoded(rgba, "PNG")), background=background)
    assert abs(picture.pixels - exact).max() <= 1
    assert picture.pixels[0, 0].tolist() == list(background)
    assert picture.notes == ("alpha composited over rgb({}, {}, {})".format(*background),)
    for kind in ("WEBP", "TIFF"):
        data = encoded(rgba, kind, **LOSSLESS[kind])
        assert np.array_equal(read_image(put(data), background=background), picture.pixels)


def test_grey_with_alpha_and_transparent_colours(put):
    levels = LEVELS[:, ::16]
    la = np.stack([levels, np.where(levels > 100, 255, 0).astype(np.uint8)], -1)
    shown = np.where(levels > 100, levels, 255)
    assert np.array_equal(read_image(put(png(la, 4)))[..., 1], shown)
    deep = np.stack([RAMP, np.where(RAMP > 999, 65535, 0).astype(np.uint16)], -1)
    hidden = read_image(put(png(deep, 4)))[..., 0]
    assert hidden[0, 0] == 255 and np.array_equal(hidden[:, 4:], LEVELS[:, 4:])

    one = np.where(levels == 32, 255, levels)  # tRNS: one level, or one colour, is transparent
    assert np.array_equal(read_image(put(png(levels, 0, chunk(b"tRNS", b"\0\x20"))))[..., 0], one)
    deep = read_image(put(png(RAMP, 0, chunk(b"tRNS", struct.pack(">H", 257 * 32)))))
    assert deep[0, 32, 0] == 255 and deep[0, 31, 0] == 31 and deep[0, 33, 0] == 33
    rgb = levels[..., None].repeat(3, -1)
    colour = chunk(b"tRNS", b"\0\x20\0\x20\0\x20")
    assert np.array_equal(read_image(put(png(rgb, 2, colour)))[..., 2], one)
    deep = RAMP[..., None].repeat(3, -1)
    deep[:, 32] = 0x2045  # what is left of it in 8 bits is 0x20
    colour = chunk(b"tRNS", struct.pack(">HHH", 0x2045, 0x2045, 0x2045))
    deep = read_image(put(png(deep, 2, colour)))
    assert deep[0, 32].tolist() == [255, 255, 255] and deep[0, 33].tolist() == [33, 33, 33]


def test_an_opaque_alpha_changes_nothing_and_is_not_mentioned(put):
    rgba = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    picture = open_picture(put(encoded(rgba, "PNG")))
    assert np.array_equal(picture.pixels, PHOTO) and picture.notes == ()


def test_palettes(put):
    table = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    index = RNG.integers(0, 256, (16, 16), dtype=np.uint8)
    palette = chunk(b"PLTE", table.tobytes())
    picture = open_picture(put(png(index, 3, palette)))
    assert np.array_equal(picture.pixels, table[index]) and picture.notes == ("converted from P",)
    alpha = RNG.integers(0, 256, 256, dtype=np.uint8)
    see_through = read_image(put(png(index, 3, palette, chunk(b"tRNS", alpha.tobytes()))))
    share = alpha[index][..., None] / 255
    assert abs(see_through - (table[index] * share + 255 * (1 - share))).max() <= 1


def test_one_bit_and_cmyk(put):
    bits = RNG.integers(0, 2, (16, 24), dtype=np.uint8) * 255
    picture = open_picture(put(encoded(Image.fromarray(bits).convert("1"), "PNG")))
    assert np.array_equal(picture.pixels[..., 0], bits)
    assert picture.notes == ("converted from 1 bit",)

    cmyk = Image.fromarray(PHOTO).convert("CMYK")  # black = 0, so R = 255 - C
    picture = open_picture(put(encoded(cmyk, "TIFF")))
    assert np.array_equal(picture.pixels, PHOTO) and picture.notes == ("converted from CMYK",)
    # A JPEG of four channels comes from Adobe's programs, which store ink inverted.
    jpeg = read_image(put(encoded(cmyk, "JPEG", quality=100, subsampling=0)))
    assert abs(jpeg.astype(int) - PHOTO).mean() < 2


def test_of_several_pictures_the_first_is_taken(put):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 200)]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        picture = open_picture(put(data))
        assert (picture.pixels == 10).all() and "first of several pictures" in picture.notes
