# SPDX-License-Identifier: MIT
"""What the paper's networks need of memory, by size and batch: the table of docs/memory.md.

    python benchmarks/predict_memory.py

Predicted by the step itself, rehearsed with tensors that have no memory: no GPU is needed, and the
figures are the same everywhere. The record: results/memory.json.
"""

from __future__ import annotations

import json

import harness

from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.memory import predict
from cyclegan_fast.training.runtime import configured
from cyclegan_fast.training.trainer import Trainer

RECORD = harness.RESULTS / "memory.json"
# Precision, size, batch and whether passes go at once and norms in pairs, as `auto` has it on a
# large GPU.
CASES = [
    ("bf16", 256, 1, "on"),
    ("bf16", 256, 8, "off"),
    ("bf16", 512, 1, "off"),
    ("bf16", 1024, 1, "off"),
    ("fp32", 256, 1, "off"),
    ("fp32", 1024, 1, "off"),
]


def main() -> None:
    """Predict, print and record."""
    rows = []
    for precision, size, batch, merge in CASES:
        config = TrainConfig(
            dataroot="none",
            device="cpu",
            precision=precision,
            load_size=size,
            crop_size=size,
            batch_size=batch,
            merge=merge,
            pair=merge,
        )
        row = {"precision": precision, "size": size, "batch": batch, "merge": merge}
        with configured(config):
            trainer = Trainer(config)
            for checkpoint in ("off", "blocks"):
                found = predict(trainer, checkpoint=checkpoint)
                if isinstance(found, str):
                    raise SystemExit(f"memory: not predicted: {found}")
                sizes = {"step": found.step, "run": found.peak}
                row[f"checkpoint {checkpoint}"] = {k: round(v / 1e6) for k, v in sizes.items()}
        print(row, flush=True)
        rows.append(row)
    RECORD.write_text(json.dumps({"unit": "MB", "rows": rows}, indent=1) + "\n")
    print(f"written to {RECORD}")


if __name__ == "__main__":
    main()
