# SPDX-License-Identifier: MIT
"""Generators found in folders of our own runs."""

import pytest
import torch

from cyclegan_fast.errors import WeightsError
from cyclegan_fast.io.weights import load_generator
from cyclegan_fast.training import checkpoint
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.trainer import Trainer


def trainer(**options):
    config = TrainConfig(
        netG="resnet_2blocks", ngf=4, ndf=4, netD="n_layers", n_layers_D=1, load_size=32,
        crop_size=32, device="cpu", **options,
    )  # fmt: skip
    return Trainer(config, steps_per_epoch=2)


def step(it, count=1):
    for _ in range(count):
        it.step({"A": torch.rand(1, 3, 32, 32), "B": torch.rand(1, 3, 32, 32)})
    return it


def same(loaded, net):
    theirs = net.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in loaded.state_dict().items())


def test_the_newest_save_of_either_direction(tmp_path):
    it = step(trainer())
    checkpoint.save(tmp_path, it)
    step(it)
    saved = checkpoint.save(tmp_path, it)
    for direction, net in (
        ("AtoB", it.networks.G_A),
        ("BtoA", it.networks.G_B),
        (None, it.networks.G_A),
    ):
        loaded, info = load_generator(tmp_path, direction)
        assert same(loaded, net) and info.path == saved
        assert info.direction == (direction or "AtoB") and not info.notes
        assert same(load_generator(saved, direction)[0], net)


def test_the_moving_average_is_what_translates(tmp_path):
    it = step(trainer(ema=0.9), 2)
    checkpoint.save(tmp_path, it)
    loaded, _ = load_generator(tmp_path)
    assert same(loaded, it.generators[0]) and not same(loaded, it.networks.G_A)


def test_a_damaged_save_is_passed_over_and_said(tmp_path):
    it = step(trainer())
    good = checkpoint.save(tmp_path, it)
    expected = {name: value.clone() for name, value in it.networks.G_A.state_dict().items()}
    bad = checkpoint.save(tmp_path, step(it))
    file = bad / "G_A.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    loaded, info = load_generator(tmp_path)
    assert info.path == good and "damaged" in info.notes[0]
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())
    for path in (good, bad):
        (path / "G_B.safetensors").unlink()
    with pytest.raises(WeightsError, match="no save in it is intact"):
        load_generator(tmp_path, "BtoA")


def test_lasting_copies_serve_when_no_save_is_left(tmp_path):
    it = step(trainer())
    for epoch in (2, 10):
        checkpoint.save_weights(tmp_path, step(it), epoch)
    loaded, info = load_generator(tmp_path)
    assert info.path.name == "epoch-0010" and same(loaded, it.networks.G_A)


def test_a_run_with_direction_b_to_a_has_its_networks_exchanged(tmp_path):
    it = step(trainer(direction="BtoA"))
    checkpoint.save(tmp_path, it)
    loaded, info = load_generator(tmp_path, "AtoB")
    assert same(loaded, it.networks.G_B)
    assert info.notes == ("trained with --direction BtoA: AtoB is its G_B",)


def test_files_for_upstream_are_read_back(tmp_path):
    it = step(trainer())
    checkpoint.save_weights(tmp_path / "run", it, 1, upstream=True)
    for direction, name in (("AtoB", "G_A"), ("BtoA", "G_B")):
        loaded, info = load_generator(tmp_path / "run" / f"latest_net_{name}.pth")
        assert same(loaded, getattr(it.networks, name)) and info.direction == direction
