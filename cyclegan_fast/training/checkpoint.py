# SPDX-License-Identifier: MIT
"""Saves: a folder each, durable, verified, without pickle; the newest good one is found again.

    run folder/
        step-00005000/     G_A G_B D_A D_B [ema_G_A ema_G_B] optimizer pools run .safetensors,
                           state.json, manifest.json
        epoch-0005/        the same without optimizer, pools and run: a lasting copy of the weights
        latest             name of the newest save, for people and scripts
        5_net_G_A.pth ...  upstream's files, with save_format both

Order of a save: finite? room? -> folder under a temporary name, flushed -> rename, flushed ->
read back and verified -> `latest` -> old saves removed. Killed at any point, the run finds either
this save or the one before.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast._version import __version__
from cyclegan_fast.errors import CheckpointError
from cyclegan_fast.training import durable, manifest, resume_notes
from cyclegan_fast.training.runtime import fingerprint
from cyclegan_fast.training.trainer import Trainer

_STEP, _EPOCH, _STATE, _LATEST = "step-", "epoch-", "state.json", "latest"
_RUN_PARTS = ("optimizer", "pools", "run")


@dataclass(frozen=True)
class Keep:
    """Which saves outlive the next: the newest `last`, and every multiple of `every` steps."""

    last: int = 2
    every: int = 0

    def keeps(self, step: int, rank: int) -> bool:
        """Whether to keep the save of a step that is the rank-th newest, from 0."""
        return rank < self.last or (self.every > 0 and step % self.every == 0)


@dataclass(frozen=True)
class Loaded:
    """What a run goes on from."""

    step: int
    path: Path
    extra: dict[str, Any]  # what the caller gave to `save`
    notes: list[str] = field(default_factory=list)  # what the user should know, a line each
    state: Mapping[str, Any] = field(default_factory=dict, repr=False)  # for the other ranks


def save(
    run_dir: Path,
    trainer: Trainer,
    keep: Keep | None = None,
    extra: Mapping[str, Any] = {},
    state: Mapping[str, Any] | None = None,
) -> Path:
    """Write a trainer's state, durably, and remove saves no longer kept.

    Args:
        run_dir: the run's folder; made if missing.
        trainer: at the end of a step.
        keep: which older saves to keep; the default keeps two.
        extra: plain values to hand back at `load_latest`.
        state: of `rank_state.collect`; None for the trainer's own.

    Returns:
        The new folder.

    Raises:
        NonFiniteError: the state is not finite. Nothing is written.
        LossScaleError: fp16 training stands still. Nothing is written.
        CheckpointError: the disk refused; earlier saves are as they were.
    """
    trainer.check()
    trainer.check_finite()
    run_dir = Path(run_dir)
    name = f"{_STEP}{trainer.step_count:08d}"
    files = _files(trainer, extra, state or trainer.state_dict(), with_run=True)
    _write(run_dir / name, files, {"step": trainer.step_count})
    try:
        durable.replace_file(run_dir / _LATEST, f"{name}\n".encode())
        _prune(run_dir, trainer.step_count, keep or Keep())
    except OSError as error:
        raise CheckpointError(_refusal(run_dir / _LATEST, error, 0)) from error
    return run_dir / name


def save_weights(run_dir: Path, trainer: Trainer, epoch: int, upstream: bool = False) -> Path:
    """Write a lasting copy of the networks at the end of an epoch.

    Args:
        run_dir: the run's folder.
        trainer: at the end of the epoch.
        epoch: its number.
        upstream: also write <epoch>_net_G_A.pth and latest_net_G_A.pth and so on, which
            pytorch-CycleGAN-and-pix2pix loads; the generators' averages where there are any.

    Returns:
        The new folder.

    Raises:
        As `save`.
    """
    trainer.check()
    trainer.check_finite()
    run_dir = Path(run_dir)
    path = run_dir / f"{_EPOCH}{epoch:04d}"
    files = _files(trainer, {}, trainer.state_dict(), with_run=False)
    _write(path, files, {"epoch": epoch})
    if upstream:
        for label in (str(epoch), _LATEST):
            _write_upstream(run_dir, trainer, label)
    return path


def load_latest(run_dir: Path, trainer: Trainer) -> Loaded | None:
    """Put a trainer into the state of the newest save that is intact.

    Args:
        run_dir: the run's folder.
        trainer: built with the run's options.

    Returns:
        Where it goes on and what to tell the user; None if there is no save at all.

    Raises:
        CheckpointError: no save is intact, or the save is of another architecture.
    """
    damaged: list[str] = []
    found = saves(run_dir)
    for step, path in found:
        try:
            page, files = manifest.read_files(path)
            if page.get("step") != step:
                raise CheckpointError(f"{path}: holds step {page.get('step')}, not {step}")
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        return _load(path, step, files, trainer, damaged, found[0][0])
    if damaged:
        raise CheckpointError(
            f"{run_dir}: none of its {len(damaged)} saves is intact: {'; '.join(damaged)}"
        )
    return None


def saves(run_dir: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of every save in a run's folder, newest first, unverified."""
    found = []
    for path in Path(run_dir).glob(f"{_STEP}*"):
        digits = path.name.removeprefix(_STEP)
        if digits.isdigit() and path.is_dir():
            found.append((int(digits), path))
    return sorted(found, reverse=True)


def read_weights(path: Path, network: str) -> dict[str, Tensor]:
    """Return a network's state dict out of a save or a lasting copy, verified.

    Args:
        path: a step- or epoch- folder.
        network: "G_A", "G_B", "D_A" or "D_B"; a generator's average where the folder holds one.

    Raises:
        CheckpointError: the folder is damaged or has no such network.
    """
    from safetensors.torch import load

    _, files = manifest.read_files(Path(path))
    for name in (f"ema_{network}.safetensors", f"{network}.safetensors"):
        if name in files:
            return load(files[name])
    raise CheckpointError(f"{path}: holds no {network}, but {', '.join(files)}")


def clean(run_dir: Path) -> None:
    """Remove what killed processes left half written."""
    for path in durable.leftovers(Path(run_dir)):
        durable.discard(path)


def _load(
    path: Path,
    step: int,
    files: Mapping[str, bytes],
    trainer: Trainer,
    damaged: list[str],
    newest: int,
) -> Loaded:
    from safetensors.torch import load

    state = json.loads(files[_STATE])
    resume_notes.check_architecture(path, state["config"], trainer.config)
    tensors = {
        name.removesuffix(".safetensors"): load(data)
        for name, data in files.items()
        if name != _STATE
    }
    saved = {"tensors": tensors, "values": state["values"]}
    try:
        trainer.load_state_dict(saved)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    notes = list(damaged)
    if damaged:
        notes.append(f"going on from {path.name}, {newest - step} steps before the newest save")
    notes += resume_notes.differences(state, trainer)
    notes += resume_notes.dealt(state["values"].get("ranks", 1), tensors["pools"], trainer)
    return Loaded(step, path, state["extra"], notes, saved)


def _files(
    trainer: Trainer, extra: Mapping[str, Any], collected: Mapping[str, Any], with_run: bool
) -> dict[str, bytes]:
    files = {
        f"{part}.safetensors": _serialise(tensors)
        for part, tensors in collected["tensors"].items()
        if with_run or part not in _RUN_PARTS
    }
    state = {
        "writer": f"cyclegan_fast {__version__}",
        "values": collected["values"],
        "config": trainer.config.to_dict(),
        "steps_per_epoch": trainer.steps_per_epoch,
        "precision": trainer.precision.name,
        "fingerprint": fingerprint(trainer.device),
        "extra": dict(extra),
    }
    files[_STATE] = (json.dumps(state, indent=1) + "\n").encode()
    return files


def _serialise(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save as to_bytes

    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # safetensors writes several entries of metadata in any order, and equal runs shall write equal
    # files: so there is one.
    return to_bytes(flat, {"format": "pt"})


def _write(path: Path, files: dict[str, bytes], facts: Mapping[str, Any]) -> None:
    files = {**files, manifest.NAME: manifest.write(files, facts)}
    needed = sum(len(data) for data in files.values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < needed:
            raise OSError(28, "No space left on device")
        durable.write_folder(path, files)
    except OSError as error:
        raise CheckpointError(_refusal(path, error, needed)) from error
    manifest.verify(path)


def _write_upstream(run_dir: Path, trainer: Trainer, label: str) -> None:
    networks = dict(trainer.networks.items())
    networks |= dict(zip(("G_A", "G_B"), trainer.generators, strict=True))
    for name, net in networks.items():
        buffer = io.BytesIO()
        plain = {
            key: tensor.detach().cpu().contiguous() for key, tensor in net.state_dict().items()
        }
        torch.save(plain, buffer)
        path = run_dir / f"{label}_net_{name}.pth"
        try:
            durable.replace_file(path, buffer.getvalue())
        except OSError as error:
            raise CheckpointError(_refusal(path, error, buffer.tell())) from error


def _prune(run_dir: Path, step: int, keep: Keep) -> None:
    # What is newer than this step was damaged and passed over at the start: not ours to count.
    past = [entry for entry in saves(run_dir) if entry[0] <= step]
    for rank, (saved, path) in enumerate(past):
        if not keep.keeps(saved, rank):
            durable.remove_folder(path)


def _refusal(path: Path, error: OSError, needed: int) -> str:
    folder = path.parent
    kept = saves(folder)
    try:
        free = f"{shutil.disk_usage(folder).free:,} bytes are free"
    except OSError:
        free = "the free space is unknown"
    before = f"the save before, {kept[0][1].name}, is untouched" if kept else "no save before it"
    return (
        f"cannot write {path}: {error.strerror}; {needed:,} bytes are needed, {free}; {before}. "
        "Make room or rights there, or choose another --checkpoints_dir."
    )
