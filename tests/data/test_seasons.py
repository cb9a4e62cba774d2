# SPDX-License-Identifier: MIT
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast import metrics
from cyclegan_fast.data import UnpairedDataset, scan, seasons, to_tensor
from cyclegan_fast.data.scenes import MATERIALS, render
from cyclegan_fast.errors import DataError


def test_golden_pixels():
    # Committed once: these bytes are the same on every machine and with every numpy, because only
    # operations that IEEE 754 rounds in one way are used.
    digest = hashlib.sha256()
    for part, size, seed in (("trainA", 64, 0), ("trainB", 32, 1), ("test", 48, 2)):
        for scene in seasons.paint(part, 9, size, seed):
            for pixels in scene:
                digest.update(pixels.tobytes())
    assert digest.hexdigest() == "3cf4611e9a7bceadc6082e67c8a040b336fe6b535ca976c923d3c92616402bc2"


def test_pictures_have_the_promised_shape_and_are_all_different():
    for part, each in (("trainA", 1), ("trainB", 1), ("test", 2)):
        scenes = list(seasons.paint(part, 11, 32))
        assert len(scenes) == 11 and all(len(scene) == each for scene in scenes)
        pictures = [pixels for scene in scenes for pixels in scene]
        assert all(p.shape == (32, 32, 3) and p.dtype == np.uint8 for p in pictures)
        assert len({p.tobytes() for p in pictures}) == len(pictures)


def test_a_scene_depends_on_its_number_and_seed_and_not_on_its_neighbours():
    few, many = list(seasons.paint("test", 3, 32)), list(seasons.paint("test", 20, 32))
    for one, other in zip(few, many[:3], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    palettes = [seasons.SUMMER]
    alone = render(0, "seasons/test", range(2, 3), 32, palettes)[0][0]
    assert np.array_equal(alone, few[2][0])
    assert not np.array_equal(next(seasons.paint("test", 1, 32, seed=1))[0], few[0][0])


def test_training_shares_no_scene_between_the_seasons():
    a = [scene[0] for scene in seasons.paint("trainA", 40, 16)]
    b_streams = render(0, "seasons/trainB", range(40), 16, [seasons.SUMMER])[0]
    assert not {p.tobytes() for p in a} & {p.tobytes() for p in b_streams}


def test_every_material_is_painted_in_both_seasons():
    assert set(seasons.SUMMER) == set(seasons.WINTER) == set(MATERIALS)
    # Without one material some picture changes: none is a dead entry of the palette.
    for name in MATERIALS:
        blank = {**seasons.SUMMER, name: (0xFF00FF, 0xFF00FF)}
        full, changed = render(0, "seasons/test", range(8), 32, [seasons.SUMMER, blank])
        assert not np.array_equal(full, changed), name


def test_one_scene_is_the_same_place_at_every_size():
    small, large = (next(seasons.paint("test", 1, size))[0] for size in (64, 128))
    halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert abs(halved - small).mean() < 6  # of 255: edges and grain differ, the place does not
    other = list(seasons.paint("test", 2, 64))[1][0]
    assert abs(other.astype(float) - small).mean() > 15


def test_the_season_is_seen_in_the_colours_and_the_place_in_the_shades():
    scenes = list(seasons.paint("test", 16, 64))
    summer, winter = (np.stack([scene[side] for scene in scenes]) for side in (0, 1))
    ground = (slice(None), slice(48, None))
    greenness = [
        x[ground][..., 1].astype(float).mean() - x[ground][..., 2].mean() for x in (summer, winter)
    ]
    assert greenness[0] > 50 and greenness[1] < 0
    a, b = (to_tensor(x) for x in (summer, winter))
    truth, wrong = metrics.ssim(a, b).item(), metrics.ssim(a, b.roll(1, dims=0)).item()
    assert truth > wrong + 0.05


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return seasons.write(tmp_path_factory.mktemp("sets") / "deep" / "seasons", 32, 10, 6, seed=4)


def test_it_is_written_in_upstreams_layout_with_hidden_pairs(root):
    for phase, count in (("train", 10), ("test", 6)):
        files = scan(root, phase)
        assert len(files.A) == len(files.B) == count and not files.problems
    assert [p.name for p in scan(root, "test").A] == [p.name for p in scan(root, "test").B]
    painted = list(seasons.paint("test", 6, 32, seed=4))
    for number, scene in enumerate(painted):
        for side, pixels in zip("AB", scene, strict=True):
            image = Image.open(root / f"test{side}" / f"{number:04d}.png")
            assert np.array_equal(np.asarray(image), pixels)
    batch = UnpairedDataset(root, "test", load_size=32, crop_size=32, augment=False).batch(0, 6)
    assert torch.equal(batch["A"], to_tensor([scene[0] for scene in painted]))
    assert torch.equal(batch["B"], to_tensor([scene[1] for scene in painted]))


def test_an_equal_set_is_left_alone_and_another_one_is_not_overwritten(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert seasons.write(root, 32, 10, 6, seed=4) == root
    for options in ((64, 10, 6, 4), (32, 11, 6, 4), (32, 10, 7, 4), (32, 10, 6, 5)):
        with pytest.raises(DataError, match="is not the seasons set asked for"):
            seasons.write(root, *options)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_users_folder_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="already exists .* name another folder"):
        seasons.write(tmp_path, 16, 1, 1)
    with pytest.raises(DataError, match="already exists"):
        seasons.write(tmp_path / "mine.txt", 16, 1, 1)
    assert os.listdir(tmp_path) == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    seasons.write(tmp_path / "empty", 16, 1, 1)
    assert len(list((tmp_path / "empty").rglob("*.png"))) == 4


def test_a_broken_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        seasons.write(tmp_path / "seasons", 16, 2, 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "options, text",
    [
        ({"size": 15}, "size must be 16 or more, got 15"),
        ({"n_train": 0}, "n_train must be 1 or more, got 0"),
        ({"n_test": 0}, "n_test must be 1 or more, got 0"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        seasons.write(tmp_path / "seasons", **options)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="part must be one of trainA, trainB, test, got 'val'"):
        next(seasons.paint("val", 1))
