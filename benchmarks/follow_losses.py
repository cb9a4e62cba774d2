# SPDX-License-Identifier: MIT
"""Whether training on the fast path goes where plain PyTorch goes: losses of both, side by side.

    python benchmarks/follow_losses.py --dataroot ./datasets/vangogh2photo [--steps 300] [--seeds 3]

Trains a small configuration from the same weights on the same pictures: by plain PyTorch in fp32
and in upstream's order (--no_accelerate, --merge off), and by the defaults of `train` in fp32 and
in bf16. A loss follows where its mean over a tenth of the steps, averaged over the seeds, is no
farther from plain PyTorch's than plain PyTorch's seeds are from each other in that loss on average
(in a single tenth, three seeds now and then come close by chance). The record:
results/losses.json. Exit code 1 if a loss does not follow.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import harness
import numpy as np
import torch

from cyclegan_fast.cli.run import training_pictures
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.runtime import configured
from cyclegan_fast.training.stats import LOSS_NAMES
from cyclegan_fast.training.trainer import Trainer

RECORD = harness.RESULTS / "losses.json"
WINDOWS = 10
SMALL = {"netG": "resnet_4blocks", "ngf": 16, "ndf": 16, "load_size": 72, "crop_size": 64}
PLAIN = {"accelerate": False, "merge": "off", "precision": "fp32"}
FAST = {"fast fp32": {"precision": "fp32"}, "fast bf16": {"precision": "bf16"}}


def curves(config: TrainConfig, steps: int) -> np.ndarray:
    """Train, and return the mean of each loss in each window, [windows, losses]."""
    with configured(config.validate()):
        data = training_pictures(config)
        trainer = Trainer(config, steps_per_epoch=data.steps_per_epoch(config.batch_size))
        rows = []
        for step in range(steps):
            losses = trainer.step(data.batch(step, config.batch_size))
            rows.append(torch.stack([losses[name].double() for name in LOSS_NAMES]).cpu())
    values = torch.stack(rows).numpy()
    return np.stack([window.mean(0) for window in np.array_split(values, WINDOWS)])


def distances(plain: np.ndarray, fast: np.ndarray) -> np.ndarray:
    """How far the fast path's losses are from plain PyTorch's, in spreads of its seeds.

    Args:
        plain: [seeds, windows, losses].
        fast: likewise.

    Returns:
        [windows, losses]; above 1 a loss does not follow.
    """
    spread = (plain.max(0) - plain.min(0)).mean(0)
    return np.abs(fast.mean(0) - plain.mean(0)) / np.maximum(spread, 1e-12)


def main() -> int:
    """Train all, record; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataroot", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    found: dict[str, np.ndarray] = {}
    for name, changes in {"plain fp32": PLAIN, **FAST}.items():
        runs = []
        for seed in range(options.seeds):
            config = TrainConfig(
                dataroot=options.dataroot, device=options.device, seed=seed, **(SMALL | changes)
            )
            runs.append(curves(config, options.steps))
            print(f"{name}, seed {seed}: {_named(runs[-1][-1])}", flush=True)
        found[name] = np.stack(runs)
    plain = found["plain fp32"]
    record = {
        "machine": harness.machine(options.device),
        "data": Path(options.dataroot).name,
        "config": SMALL,
        "steps": options.steps,
        "losses": LOSS_NAMES,
        "means": {name: values.round(5).tolist() for name, values in found.items()},
        "spreads": {name: distances(plain, found[name]).round(3).tolist() for name in FAST},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    worst = {name: distances(plain, found[name]) for name in FAST}
    for name, far in worst.items():
        print(f"{name}: at most {far.max():.2f} spreads of the seeds from plain PyTorch")
    print(f"written to {RECORD}")
    return int(any(far.max() > 1 for far in worst.values()))


def _named(values: np.ndarray) -> str:
    return ", ".join(f"{n} {v:.3f}" for n, v in zip(LOSS_NAMES, values, strict=True))


if __name__ == "__main__":
    sys.exit(main())
