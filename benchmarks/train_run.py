# SPDX-License-Identifier: MIT
"""A real training, short: what a user gets per second, reading, reporting and saving included.

    python benchmarks/train_run.py [--seconds 300] [--size 256] [--batch 1] [--device cuda]
        [--dataroot DIR [--runs DIR]]

Trains upstream's networks with the options' defaults until the time is over, and saves as every run
does: on the demo's summers and winters, painted here, or on the data set of --dataroot. Writes a
section "train" of the device's file in benchmarks/results. The last sheet of painted samples is
kept beside it; pictures of a given data set stay in the folder of the run, which is kept in --runs.
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
from datetime import UTC, datetime
from pathlib import Path

import harness
import torch
from records import ROOT

from cyclegan_fast import backend
from cyclegan_fast.cli.reporter import SAMPLES
from cyclegan_fast.cli.run import Run
from cyclegan_fast.data import seasons
from cyclegan_fast.training.config import TrainConfig

FOR_EVER = 10**6  # epochs
# Of the time given: what painting, the last save and the end may take.
RESERVE = 30.0
SEASONS = "seasons"
TINY = {"netG": "resnet_2blocks", "ngf": 8, "ndf": 8, "pool_size": 2}


def main() -> int:
    """Paint if need be, train, record; return the exit status."""
    options = _options()
    began = time.monotonic()
    where = harness.file_for(options.device)
    given = options.dataroot
    with tempfile.TemporaryDirectory(prefix="train-run-") as folder:
        data = given or seasons.write(
            Path(folder) / SEASONS, size=options.size, n_train=options.pictures, n_test=4
        )
        config = TrainConfig(
            dataroot=str(data),
            checkpoints_dir=str(options.runs) if given else folder,
            name=f"{data.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}",
            device=options.device,
            batch_size=options.batch,
            load_size=options.size * 286 // 256,  # as upstream's 286 for its 256
            crop_size=options.size,
            n_epochs=FOR_EVER,
            max_steps=options.steps,
            **(TINY if options.tiny else {}),
        ).validate()
        left = options.seconds - (time.monotonic() - began) - RESERVE
        run = Run(config, [], sys.argv, ("A", "B") if given else ("summer", "winter"))
        # As a scheduler ends a run: after this step, saved.
        timer = threading.Timer(max(left, 1.0), os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
        result = run.train()
        timer.cancel()
        sheet = result.run_dir / SAMPLES / "latest.png"
        if not given:
            where.parent.mkdir(parents=True, exist_ok=True)
            kept = where.with_name(f"{where.stem}-train.png")
            sheet = Path(shutil.copyfile(sheet, kept))
    cuda = options.device == "cuda"
    row = {
        "data": data.name,
        "size": options.size,
        "batch": options.batch,
        "precision": result.trainer.precision.name,
        "graph": result.trainer.not_captured or "captured",
        "steps": result.step,
        "seconds": round(result.seconds, 2),
        "iterations_per_s": round(result.step / result.seconds, 3),
        "images_per_s": round(result.trainer.images / result.seconds, 3),
        "peak_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None,
        "saved": result.saved is not None,
        "sheet": None if given else sheet.name,
        "served": backend.by_op(result.served),
    }
    section = f"train {options.size} batch {options.batch}"
    harness.write(f"{section}, {data.name}" if given else section, options.device, row)
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
    parser.add_argument("--dataroot", type=Path, help="folder with trainA and trainB")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="gets the run's folder")
    parser.add_argument("--tiny", action="store_true", help="small networks")
    options = parser.parse_args()
    if options.dataroot is not None:
        options.dataroot = options.dataroot.resolve()  # "." has no name
    return options


if __name__ == "__main__":
    sys.exit(main())
