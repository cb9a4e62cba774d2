# SPDX-License-Identifier: MIT
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import SMALL, fill, fingerprint, numbers
from PIL import Image

from cyclegan_fast import draws
from cyclegan_fast.data import UnpairedDataset


def test_a_batch_is_what_upstream_would_make_of_the_same_draws(root):
    dataset = UnpairedDataset(root, seed=7, **SMALL)
    assert len(dataset) == 8 and dataset.sizes == {"A": 5, "B": 8}
    for epoch in range(2):
        order = draws.permutation(7, "order", epoch, 8)
        for place in range(8):
            number = epoch * 8 + place
            batch = dataset.batch(number)
            assert numbers(batch["A_paths"]) == [order[place] % 5]
            assert numbers(batch["B_paths"]) == [draws.integers(7, "pair", number, 1, 8)[0]]
            drawn = draws.uniforms(7, "crop and flip", number, 6)
            for side, (top, left, flip) in zip("AB", drawn.reshape(2, 3), strict=True):
                image = Image.open(batch[f"{side}_paths"][0]).resize((18, 18), Image.BICUBIC)
                x, y = int(left * 3), int(top * 3)
                image = image.crop((x, y, x + 16, y + 16))
                if flip < 0.5:
                    image = image.transpose(Image.FLIP_LEFT_RIGHT)
                expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
                assert torch.equal(batch[side][0], expected.float().div(255).sub(0.5).div(0.5))


def test_golden_order(root):
    # Committed once: a change here changes the data of every seeded run there is.
    dataset = UnpairedDataset(root, seed=1, **SMALL)
    batches = [dataset.batch(step, 3) for step in range(4)]
    a = [numbers(batch["A_paths"]) for batch in batches]
    b = [numbers(batch["B_paths"]) for batch in batches]
    assert a == [[0, 2, 3], [4, 1, 0], [1, 2], [3, 1, 1]]
    assert b == [[3, 3, 3], [3, 7, 5], [3, 2], [4, 2, 7]]


def test_an_epoch_shows_every_picture_of_the_larger_domain_or_more(root):
    larger_a = fill(root, testA=8, testB=3)
    for phase, shown_once in (("train", None), ("test", 8)):
        dataset = UnpairedDataset(larger_a, phase, seed=3, **SMALL)
        seen = [dataset.batch(step, 2) for step in range(dataset.steps_per_epoch(2))]
        a = Counter(number for batch in seen for number in numbers(batch["A_paths"]))
        assert sum(a.values()) == 8
        if shown_once:
            assert set(a) == set(range(8)) and set(a.values()) == {1}
        else:
            assert set(a) == set(range(5)) and set(a.values()) == {1, 2}  # A = order modulo 5


def test_pairing_is_uniform_and_independent_of_the_order(tmp_path):
    root = fill(tmp_path, size=(2, 2), trainA=4, trainB=3)
    dataset = UnpairedDataset(root, load_size=2, crop_size=2)
    pairs = Counter()
    for step in range(1200):
        a, b = dataset.files(step)
        pairs[Path(a).stem, Path(b).stem] += 1
    assert len(pairs) == 12
    # Binomial(1200, 1/12): mean 100, deviation 9.6; fixed draws.
    assert max(abs(count - 100) for count in pairs.values()) < 45


def test_the_sample_does_not_depend_on_the_batch_size(root):
    dataset = UnpairedDataset(root, seed=5, **SMALL)
    singles = [dataset.batch(step) for step in range(16)]
    for size in (2, 3, 8, 11):
        steps = dataset.steps_per_epoch(size)
        assert steps == -(-8 // size)
        batches = [dataset.batch(step, size) for step in range(2 * steps)]
        assert [len(batch["A"]) for batch in batches[:steps]] == [
            min(size, 8 - start) for start in range(0, 8, size)
        ]
        for key in ("A", "B"):
            assert torch.equal(
                torch.cat([batch[key] for batch in batches]),
                torch.cat([single[key] for single in singles]),
            )


def test_a_batch_is_a_pure_function_of_seed_and_step(root):
    first = UnpairedDataset(root, seed=5, **SMALL)
    prints = [fingerprint(first.batch(step, 3)) for step in range(9)]
    assert len(set(prints)) == 9
    again = UnpairedDataset(root, seed=5, cache_bytes=0, check=False, **SMALL)
    assert [fingerprint(again.batch(step, 3)) for step in reversed(range(9))] == prints[::-1]
    other = UnpairedDataset(root, seed=6, **SMALL)
    assert not {fingerprint(other.batch(step, 3)) for step in range(9)} & set(prints)


def test_serial_batches_go_in_order_and_still_crop_and_flip(root):
    dataset = UnpairedDataset(root, serial_batches=True, **SMALL)
    batches = [dataset.batch(step, 4) for step in range(4)]
    assert numbers(batches[0]["A_paths"] + batches[1]["A_paths"]) == [0, 1, 2, 3, 4, 0, 1, 2]
    assert numbers(batches[0]["B_paths"] + batches[1]["B_paths"]) == list(range(8))
    assert batches[2]["A_paths"] == batches[0]["A_paths"]
    assert not torch.equal(batches[2]["A"], batches[0]["A"])


def test_without_augmentation_pictures_come_in_order_from_the_middle(root):
    dataset = UnpairedDataset(root, augment=False, load_size=20, crop_size=16)
    batch = dataset.batch(0, 8)
    assert numbers(batch["A_paths"]) == [0, 1, 2, 3, 4, 0, 1, 2]
    middle = np.asarray(Image.open(batch["A_paths"][0]))[2:18, 2:18]
    back = ((batch["A"][0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    assert np.array_equal(back.numpy(), middle)
    assert fingerprint(dataset.batch(1, 8)) == fingerprint(batch)


def test_flip_false_never_mirrors(root):
    options = {"load_size": 20, "crop_size": 20, "serial_batches": True}
    plain = UnpairedDataset(root, flip=False, **options)
    mirrored = UnpairedDataset(root, **options)
    straight = 0
    for step in range(24):
        expected, got = plain.batch(step)["A"], mirrored.batch(step)["A"]
        straight += torch.equal(got, expected)
        assert torch.equal(got, expected) or torch.equal(got, expected.flip(3))
    assert 4 < straight < 20


def test_channels_follow_the_direction_and_names_follow_the_folders(root):
    for direction, a, b in (("AtoB", 1, 3), ("BtoA", 3, 1)):
        dataset = UnpairedDataset(root, input_nc=1, output_nc=3, direction=direction, **SMALL)
        batch = dataset.batch(0)
        assert batch["A"].shape == (1, a, 16, 16) and batch["B"].shape == (1, b, 16, 16)
        assert "trainA" in batch["A_paths"][0]


def test_one_picture_in_a_domain_is_enough(tmp_path):
    dataset = UnpairedDataset(fill(tmp_path, trainA=1, trainB=3), **SMALL)
    assert {path for step in range(6) for path in dataset.batch(step)["A_paths"]} == {
        str(tmp_path / "trainA" / "0.png")
    }
    one = UnpairedDataset(fill(tmp_path, testA=1, testB=1), "test", **SMALL)
    assert len(one) == 1 and len(one.batch(3, 4)["A"]) == 1


def test_max_dataset_size(root):
    dataset = UnpairedDataset(root, max_dataset_size=3, **SMALL)
    assert dataset.sizes == {"A": 3, "B": 3}


def test_pictures_of_different_sizes_cannot_share_a_batch(tmp_path):
    fill(tmp_path, size=(20, 24), trainA=1, trainB=2)
    Image.new("RGB", (20, 32)).save(tmp_path / "trainA" / "9.png")
    dataset = UnpairedDataset(tmp_path, preprocess="none", serial_batches=True)
    assert dataset.batch(0)["A"].shape == (1, 3, 20, 24)
    with pytest.raises(ValueError, match="got 24 x 20 in .*0.png and 20 x 32 in .*9.png") as caught:
        dataset.batch(0, 2)
    assert "--batch_size 1" in str(caught.value)


def test_a_crop_that_does_not_fit_names_the_smallest_picture(root):
    Image.new("RGB", (17, 12)).save(root / "trainA" / "small.png")
    Image.new("RGB", (14, 90)).save(root / "trainA" / "thin.png")
    with pytest.raises(ValueError, match="2 of 7 pictures are too small") as caught:
        UnpairedDataset(root, preprocess="crop", crop_size=16)
    assert "small.png: crop_size must be at most 12" in str(caught.value)


def test_a_cache_too_small_for_all_changes_nothing_but_reads_again(root, monkeypatch):
    import cyclegan_fast.data.store as store

    reads: list[str] = []
    read = store.open_picture
    monkeypatch.setattr(
        store, "open_picture", lambda path, *a, **k: reads.append(str(path)) or read(path, *a, **k)
    )
    one_picture = 18 * 18 * 3
    prints = []
    for kept in (13, 4, 0):
        dataset = UnpairedDataset(root, cache_bytes=kept * one_picture, **SMALL)
        assert len(reads) == 13  # the check reads each file once
        reads.clear()
        prints.append([fingerprint(dataset.batch(step, 8)) for step in range(2)])
        assert (len(reads) == 0) == (kept == 13)
        if kept == 0:
            assert len(reads) == 32
        reads.clear()
    assert prints[0] == prints[1] == prints[2]


def test_a_cached_picture_cannot_be_changed_by_accident(root):
    dataset = UnpairedDataset(root, flip=False, load_size=16, crop_size=16, serial_batches=True)
    before = dataset.batch(0)["A"].clone()
    dataset.batch(0)["A"].zero_()
    assert torch.equal(dataset.batch(0)["A"], before)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"direction": "ABBA"}, "direction must be AtoB or BtoA, got 'ABBA'"),
        ({"on_bad": "ignore"}, 'on_bad must be "skip" or "fail", got'),
        ({"input_nc": 2, "check": False}, "input_nc must be 1 or 3, got 2"),
        ({"crop_size": 19, "load_size": 18}, "crop_size must be at most load_size"),
    ],
)
def test_wrong_options_are_named(root, options, text):
    with pytest.raises(ValueError, match=text):
        UnpairedDataset(root, **{**SMALL, **options})


def test_wrong_steps_are_named(root):
    dataset = UnpairedDataset(root, **SMALL)
    with pytest.raises(ValueError, match="step must be 0 or more, got -1"):
        dataset.batch(-1)
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        dataset.batch(0, 0)
