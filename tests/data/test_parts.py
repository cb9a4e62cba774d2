# SPDX-License-Identifier: MIT
"""Parts of a joined batch: together they are the batch, picture by picture."""

import pytest
import torch
from picture_files import SMALL, fill

from cyclegan_fast.data import UnpairedDataset
from cyclegan_fast.data.parts import Part, part_of, rows
from cyclegan_fast.data.resident import ResidentPictures


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("total", range(1, 12))
def test_rows_are_dealt_out_once_each_and_nobody_is_left_without(total, count):
    dealt = []
    for rank in range(count):
        taken, counted = rows(total, rank, count)
        assert len(taken) == max(counted, 1) and 0 <= taken[0] and taken[-1] < total
        dealt += list(taken)[:counted]
    assert dealt == list(range(total))
    sizes = [rows(total, rank, count)[1] for rank in range(count)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("how", ["files", "on the device", "cut from whole batches"])
def test_parts_are_the_joined_batch(root, how):
    """Epochs of 8: joined batches of 6 and 2 pictures, dealt out to 3 ranks."""
    whole = UnpairedDataset(root, seed=1, **SMALL)
    parts = [whole.part(rank, 3) for rank in range(3)]
    if how == "on the device":
        cpu, plain = torch.device("cpu"), torch.contiguous_format
        parts = [ResidentPictures.of(part, cpu, torch.float32, plain) for part in parts]
    elif how == "cut from whole batches":
        parts = [Part(whole, rank, 3) for rank in range(3)]
    for step in range(4):
        expected = whole.batch(step, 6)
        found = [part.batch(step, 2) for part in parts]
        total = len(expected["A"])
        assert [part["joined"] for part in found] == [
            (rows(total, rank, 3)[1], total) for rank in range(3)
        ]
        for name in ("A", "B"):
            pictures = [
                part[name] if isinstance(part[name], torch.Tensor) else part[name].make()
                for part in found
            ]
            counted = [p[: part["joined"][0]] for p, part in zip(pictures, found, strict=True)]
            assert torch.equal(torch.cat(counted), expected[name])
            paths = [path for p in found for path in p[f"{name}_paths"][: p["joined"][0]]]
            assert paths == expected[f"{name}_paths"]
        assert "joined" not in expected
    assert [part.steps_per_epoch(2) for part in parts] == [whole.steps_per_epoch(6)] * 3


def test_data_that_can_make_parts_is_asked_for_them(root):
    whole = UnpairedDataset(root, seed=1, **SMALL)
    assert isinstance(part_of(whole, 0, 2), UnpairedDataset)
    assert isinstance(part_of(object(), 0, 2), Part)


def test_an_inventory_tells_names_sizes_and_order(tmp_path):
    first = UnpairedDataset(fill(tmp_path / "a", trainA=3, trainB=4), **SMALL).inventory()
    assert first["folder A"].startswith("3 pictures, digest ")
    again = UnpairedDataset(tmp_path / "a", seed=3, **SMALL).inventory()
    assert again == first
    (tmp_path / "a/trainB/0.png").rename(tmp_path / "a/trainB/9.png")
    moved = UnpairedDataset(tmp_path / "a", **SMALL).inventory()
    assert moved["folder A"] == first["folder A"] and moved["folder B"] != first["folder B"]
