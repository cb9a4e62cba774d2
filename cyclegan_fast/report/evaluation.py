# SPDX-License-Identifier: MIT
"""Measure a run's generators on test pictures, beside what needs no training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cyclegan_fast.data.unpaired import UnpairedDataset
from cyclegan_fast.training.config import TrainConfig

if TYPE_CHECKING:
    from cyclegan_fast.training.trainer import Trainer

ROWS = ("input as is", "colour match", "this run", "floor")
METRICS = {
    "psnr": "PSNR to the hidden truth, dB",
    "ssim": "SSIM to the hidden truth",
    "patch_swd": "patch-SWD to real pictures",
}
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "patch_swd": False}
_SHOWN = 8


@dataclass
class Direction:
    """One direction's figures and pictures.

    Attributes:
        name: e.g. "summer → winter".
        table: metric -> row -> value, rows as in ROWS.
        count: test pictures measured.
        pictures: heading -> float32 [N, C, H, W] in [-1, 1]; N pictures to look at.
    """

    name: str
    table: dict[str, dict[str, float]]
    count: int = 0
    pictures: dict[str, Tensor] = field(default_factory=dict)


def test_pictures(config: TrainConfig, phase: str) -> UnpairedDataset:
    """Return a phase's pictures as they are for tests: in order, unmirrored, of one size.

    Args:
        config: dataroot, sizes and channels. Modes that leave every picture its own size are
            replaced by scaling to crop_size, since figures need pictures of one size.
        phase: "test" or "train".
    """
    mode, load_size, crop_size = config.preprocess, config.load_size, config.crop_size
    if mode in ("none", "scale_width"):
        multiple = int(config.netG[5:]) if config.netG.startswith("unet_") else 4
        mode, crop_size = "resize_and_crop", max(multiple, crop_size // multiple * multiple)
    if mode == "resize_and_crop":
        load_size = crop_size  # upstream's default for tests: the whole picture
    return UnpairedDataset(
        config.dataroot,
        phase,
        preprocess=mode,
        load_size=load_size,
        crop_size=crop_size,
        input_nc=config.input_nc,
        output_nc=config.output_nc,
        direction=config.direction,
        max_dataset_size=config.max_dataset_size,
        augment=False,
        check=False,
    )


def domains(config: TrainConfig, names: tuple[str, str] = ("A", "B")) -> tuple[str, str]:
    """Return the names of the networks' domains A and B; direction BtoA exchanges the folders'."""
    return names if config.direction == "AtoB" else (names[1], names[0])


def evaluate(
    trainer: Trainer, count: int, paired: bool, names: tuple[str, str] = ("A", "B")
) -> list[Direction]:
    """Translate test pictures both ways and measure.

    Args:
        trainer: its generators, or their averages where it keeps some.
        count: at most this many test pictures of each domain.
        paired: testA and testB hold the same scenes under the same names; then PSNR and SSIM are
            measured too. Training never sees that.
        names: of the folders' domains.

    Returns:
        Both directions, G_A's first.
    """
    config = trainer.config
    test, train = test_pictures(config, "test"), test_pictures(config, "train")
    shown = test.batch(0, min(count, max(test.sizes.values())))
    # Statistics of colours and patches settle long before this many pictures.
    known = train.batch(0, min(400 if config.crop_size <= 64 else 64, len(train)))
    # Where a folder has fewer pictures than the other, its first ones are repeated: cut those off.
    a, b = (shown[side][: test.sizes[side]] for side in ("A", "B"))
    known_a, known_b = (known[side][: train.sizes[side]] for side in ("A", "B"))
    if config.direction == "BtoA":
        a, b, known_a, known_b = b, a, known_b, known_a
    net_a, net_b = trainer.generators
    fake_b, fake_a = translate(trainer, net_a, a), translate(trainer, net_b, b)
    back_a = translate(trainer, net_b, fake_b[:_SHOWN])
    back_b = translate(trainer, net_a, fake_a[:_SHOWN])
    first, second = domains(config, names)
    both = []
    for name, real, fake, back, source, target, truth in (
        (f"{first} → {second}", a, fake_b, back_a, known_a, known_b, b),
        (f"{second} → {first}", b, fake_a, back_b, known_b, known_a, a),
    ):
        pictures = {"input": real[:_SHOWN], "translated": fake[:_SHOWN], "and back": back}
        if paired:
            pictures["truth"] = truth[:_SHOWN]
        table = _table(fake, real, source, target, truth, paired)
        both.append(Direction(name, table, len(real), pictures))
    return both


def _table(
    fake: Tensor, real: Tensor, source: Tensor, target: Tensor, truth: Tensor, paired: bool
) -> dict[str, dict[str, float]]:
    from cyclegan_fast.metrics import compare, patch_swd

    if real.shape[1] != target.shape[1]:  # grey to colour: no picture can stay as it is
        rows: dict[str, dict[str, float]] = {
            "translated": {"patch_swd": float(patch_swd(fake, target))}
        }
    else:
        rows = compare(fake, real, source, target, truth if paired else None)
    rows.setdefault("floor", {"patch_swd": float(patch_swd(truth, target))})
    rows["this run"] = rows.pop("translated")
    return {
        metric: {row: rows[row][metric] for row in ROWS if metric in rows.get(row, {})}
        for metric in METRICS
        if metric in rows["this run"]
    }


@torch.no_grad()
def translate(trainer: Trainer, net: torch.nn.Module, x: Tensor, batch_size: int = 8) -> Tensor:
    """Return a generator's translations, float32 [N, C, H, W] on the CPU, made in eval mode."""
    training = net.training
    net.eval()
    try:
        with trainer.precision.autocast():
            done = [
                net(part.to(trainer.device, memory_format=trainer.memory_format)).float().cpu()
                for part in x.split(batch_size)
            ]
    finally:
        net.train(training)
    return torch.cat(done).contiguous()


def as_facts(directions: list[Direction]) -> list[dict[str, Any]]:
    """Return the figures as plain values, one entry per direction and metric."""
    return [
        {
            "direction": direction.name,
            "metric": metric,
            "name": METRICS[metric],
            "higher_is_better": HIGHER_IS_BETTER[metric],
            "values": values,
        }
        for direction in directions
        for metric, values in direction.table.items()
    ]
