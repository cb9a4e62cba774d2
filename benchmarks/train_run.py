# SPDX-License-Identifier: MIT
"""A real training, short: what a user gets per second, reading, reporting and saving included.

    python benchmarks/train_run.py [--seconds 300] [--size 256] [--batch 1] [--device cuda]

Paints the demo's summers and winters, trains upstream's networks on them with the options' defaults
until the time is over, and saves as every run does. Writes the section "train" of the device's file
in benchmarks/results, and keeps the last sheet of sample pictures beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import harness
import torch

from cyclegan_fast import backend
from cyclegan_fast.cli.reporter import SAMPLES
from cyclegan_fast.cli.run import Run
from cyclegan_fast.data import seasons
from cyclegan_fast.training.config import TrainConfig

FOR_EVER = 10**6  # epochs
# Of the time given: what painting, the last save and the end may take.
RESERVE = 30.0
TINY = {"netG": "resnet_2blocks", "ngf": 8, "ndf": 8, "pool_size": 2}


def main() -> int:
    """Paint, train, record; return the exit status."""
    options = _options()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="train-run-") as folder:
        data = seasons.write(
            Path(folder) / "seasons", size=options.size, n_train=options.pictures, n_test=4
        )
        config = TrainConfig(
            dataroot=str(data),
            checkpoints_dir=folder,
            name="train",
            device=options.device,
            batch_size=options.batch,
            load_size=options.size * 286 // 256,  # as upstream's 286 for its 256
            crop_size=options.size,
            n_epochs=FOR_EVER,
            max_steps=options.steps,
            **(TINY if options.tiny else {}),
        ).validate()
        left = options.seconds - (time.monotonic() - began) - RESERVE
        run = Run(config, [], sys.argv, ("summer", "winter"))
        # As a scheduler ends a run: after this step, saved.
        timer = threading.Timer(max(left, 1.0), os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
        result = run.train()
        timer.cancel()
        where = harness.file_for(options.device)
        sheet = where.with_name(f"{where.stem}-train.png")
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(result.run_dir / SAMPLES / "latest.png", sheet)
    row = {
        "size": options.size,
        "batch": options.batch,
        "precision": result.trainer.precision.name,
        "graph": result.trainer.not_captured or "captured",
        "steps": result.step,
        "seconds": round(result.seconds, 2),
        "iterations_per_s": round(result.step / result.seconds, 3),
        "images_per_s": round(result.trainer.images / result.seconds, 3),
        "saved": result.saved is not None,
        "sheet": sheet.name,
        "served": backend.by_op(result.served),
    }
    harness.write(f"train {options.size} batch {options.batch}", options.device, row)
    print(f"{row['iterations_per_s']} iterations/s over {row['steps']} steps; {sheet}")
    return 0 if row["saved"] and row["steps"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=300, help="for all of it")
    parser.add_argument("--steps", type=int, default=0, help="at most; 0: as many as fit")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=100, help="of each season")
    parser.add_argument("--tiny", action="store_true", help="small networks")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
