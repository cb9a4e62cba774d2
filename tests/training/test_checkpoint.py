# SPDX-License-Identifier: MIT
"""Saves: what is written comes back, damage is noticed, the newest good one is found."""

import json
import shutil

import pytest
import torch
import toy

from cyclegan_fast.errors import CheckpointError
from cyclegan_fast.training import Trainer, checkpoint, manifest


def trained(steps, **options):
    trainer, data = Trainer(toy.config(**options), steps_per_epoch=6), toy.Data()
    for step in range(steps):
        trainer.step(data.batch(step, 1))
    return trainer


def snapshot(trainer):
    collected = trainer.state_dict()
    tensors = {
        f"{part}/{name}": tensor.clone()
        for part, tensors in collected["tensors"].items()
        for name, tensor in tensors.items()
    }
    return tensors, collected["values"]


def assert_same(a, b):
    assert a[1] == b[1]
    assert a[0].keys() == b[0].keys()
    for name, tensor in a[0].items():
        assert tensor.dtype == b[0][name].dtype and torch.equal(tensor, b[0][name]), name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run folder with two saves; tests copy it."""
    folder = tmp_path_factory.mktemp("saved")
    trainer, data = Trainer(toy.config(ema=0.9), steps_per_epoch=6), toy.Data()
    for step in range(4):
        trainer.step(data.batch(step, 1))
        if step in (1, 3):
            checkpoint.save(folder, trainer, extra={"step": step + 1})
    return folder


@pytest.fixture
def run_dir(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(ema=0.9, lr_policy="plateau"),
        dict(precision="fp16", dropout=True),
        dict(precision="bf16", norm="batch"),
        dict(memory_format="channels_last", pool_size=0),
        dict(preprocess="none"),
    ],
)
def test_everything_comes_back(tmp_path, options):
    torch.manual_seed(1)
    trainer = trained(8, **options)
    expected = snapshot(trainer)
    path = checkpoint.save(tmp_path, trainer, extra={"mark": [1, "two"]})
    torch.manual_seed(2)
    other = trained(1, **options)
    loaded = checkpoint.load_latest(tmp_path, other)
    assert (loaded.step, loaded.path, loaded.extra) == (8, path, {"mark": [1, "two"]})
    assert loaded.notes == []
    assert_same(snapshot(other), expected)
    batch = toy.Data().batch(8, 1)
    going_on = [torch.stack(list(t.step(batch).values())) for t in (trainer, other)]
    if not options.get("dropout"):  # there the two have drawn from one generator by now
        assert torch.equal(*going_on)


def test_layout_of_the_folder(run_dir):
    names = sorted(path.name for path in run_dir.iterdir())
    assert names == ["latest", "step-00000002", "step-00000004"]
    assert (run_dir / "latest").read_text() == "step-00000004\n"
    parts = ["D_A", "D_B", "G_A", "G_B", "ema_G_A", "ema_G_B", "optimizer", "pools", "run"]
    files = sorted(path.name for path in (run_dir / "step-00000004").iterdir())
    expected = sorted([f"{part}.safetensors" for part in parts] + ["manifest.json", "state.json"])
    assert files == expected


def test_nothing_is_pickled(run_dir):
    for path in run_dir.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not data.startswith((b"PK", b"\x80")), path


@pytest.mark.parametrize("part", ["G_A.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "swapped"])
def test_a_damaged_save_is_passed_over(run_dir, part, damage):
    path = run_dir / "step-00000004" / part
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "swapped":
        shutil.copy(run_dir / "step-00000002" / part, path)
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes({"flip": data, "cut": data[:-1], "empty": b""}[damage])
    trainer = trained(0, ema=0.9)
    loaded = checkpoint.load_latest(run_dir, trainer)
    assert loaded.step == trainer.step_count == 2
    first, second = loaded.notes
    assert "step-00000004" in first and part in first
    assert second == "going on from step-00000002, 2 steps before the newest save"


def test_every_flipped_bit_is_noticed(run_dir):
    """400 places drawn at random, half of them in the manifest."""
    folder = run_dir / "step-00000004"
    files = sorted(path for path in folder.iterdir() if path.name != manifest.NAME)
    generator = torch.Generator().manual_seed(0)
    manifest.verify(folder)
    for number in range(400):
        path = files[number % len(files)] if number % 2 else folder / manifest.NAME
        right = path.read_bytes()
        bit = int(torch.randint(8 * len(right), (), generator=generator))
        wrong = bytearray(right)
        wrong[bit // 8] ^= 1 << bit % 8
        path.write_bytes(wrong)
        with pytest.raises(CheckpointError, match="is damaged"):
            manifest.verify(folder)
        path.write_bytes(right)
    manifest.verify(folder)


def _manifest(folder):
    return (folder / manifest.NAME).read_bytes()


def test_a_save_under_a_wrong_name_is_damaged(run_dir):
    (run_dir / "step-00000004").rename(run_dir / "step-00000009")
    loaded = checkpoint.load_latest(run_dir, trained(0, ema=0.9))
    assert loaded.step == 2 and "holds step 4, not 9" in loaded.notes[0]


def test_no_good_save_is_an_error_and_none_at_all_is_not(run_dir, tmp_path):
    assert checkpoint.load_latest(tmp_path / "nowhere", trained(0)) is None
    for path in run_dir.glob("step-*/state.json"):
        path.write_text("{}")
    with pytest.raises(CheckpointError, match="none of its 2 saves is intact: .*step-00000004"):
        checkpoint.load_latest(run_dir, trained(0, ema=0.9))


def test_a_newer_format_is_refused_with_the_reason(run_dir):
    for step in (2, 4):
        folder = run_dir / f"step-{step:08d}"
        page = json.loads(_manifest(folder))
        body = {**page, "version": 2}
        del body["sha256"]
        body["sha256"] = manifest.digest((json.dumps(body, indent=1) + "\n").encode())
        (folder / manifest.NAME).write_text(json.dumps(body, indent=1) + "\n")
    with pytest.raises(CheckpointError, match="version 2.*a newer program wrote it"):
        checkpoint.load_latest(run_dir, trained(0, ema=0.9))


def test_another_architecture_is_refused_with_what_the_save_holds(run_dir):
    other = trained(0, ema=0.9, ngf=3, dropout=True)
    before = snapshot(other)
    with pytest.raises(
        CheckpointError,
        match="holds ngf 2, dropout False, and this run asks for ngf 3, dropout True. "
        "Use --ngf 2 --no_dropout, or another --name",
    ):
        checkpoint.load_latest(run_dir, other)
    assert_same(snapshot(other), before)


def test_networks_that_options_do_not_tell_are_refused_by_their_shapes(run_dir, monkeypatch):
    other = trained(0, ema=0.9)
    monkeypatch.setattr(checkpoint.resume_notes, "check_architecture", lambda *_: None)
    wider = trained(0, ema=0.9, ngf=3)
    before = snapshot(wider)
    with pytest.raises(CheckpointError, match=r"G_A holds \[2, 3, 7, 7\] at model.1.weight.*\[3, "):
        checkpoint.load_latest(run_dir, wider)
    assert_same(snapshot(wider), before)
    assert checkpoint.load_latest(run_dir, other).step == 4


def test_changed_options_and_machines_are_said(run_dir, monkeypatch):
    monkeypatch.setattr(
        checkpoint.resume_notes, "fingerprint", lambda _: {"torch": "9.9", "threads": 1}
    )
    other = Trainer(toy.config(ema=0.9, lr=1e-3, print_freq=7), steps_per_epoch=5)
    notes = checkpoint.load_latest(run_dir, other).notes
    assert notes[0] == "options changed since the save: lr 0.0002 -> 0.001"
    assert notes[1].startswith("an epoch had 6 steps and now has 5")
    assert notes[2].startswith("not bit-exact with the run before") and "-> 9.9" in notes[2]


def test_old_saves_go_when_the_new_one_stands(tmp_path):
    trainer, data = trained(0), toy.Data()
    keep = checkpoint.Keep(last=2, every=3)
    for step in range(8):
        trainer.step(data.batch(step, 1))
        checkpoint.save(tmp_path, trainer, keep)
    assert [step for step, _ in checkpoint.saves(tmp_path)] == [8, 7, 6, 3]


def test_lasting_copies_and_upstreams_files(tmp_path):
    trainer = trained(3, ema=0.5)
    path = checkpoint.save_weights(tmp_path, trainer, epoch=5, upstream=True)
    assert path.name == "epoch-0005"
    weights = {f"{n}.safetensors" for n in ("G_A", "G_B", "D_A", "D_B", "ema_G_A", "ema_G_B")}
    assert {p.name for p in path.iterdir()} == weights | {"state.json", "manifest.json"}
    for label in ("5", "latest"):
        for name, net in (("G_A", trainer.generators[0]), ("D_B", trainer.networks.D_B)):
            file = torch.load(tmp_path / f"{label}_net_{name}.pth", weights_only=True)
            read = checkpoint.read_weights(path, name)
            assert list(file) == list(net.state_dict())
            for key, value in net.state_dict().items():
                assert torch.equal(file[key], value) and torch.equal(read[key], value), key
    with pytest.raises(CheckpointError, match="holds no G_C, but"):
        checkpoint.read_weights(path, "G_C")
    assert checkpoint.load_latest(tmp_path, trained(0, ema=0.5)) is None
