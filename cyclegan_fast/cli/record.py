# SPDX-License-Identifier: MIT
"""run.json: what a run was started with, where it ran, who served its ops, how it ended."""

from __future__ import annotations

import json
import platform
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_fast import backend
from cyclegan_fast.errors import CheckpointError
from cyclegan_fast.io.pictures import write_bytes

if TYPE_CHECKING:
    from cyclegan_fast.training.reporter import RunResult
    from cyclegan_fast.training.trainer import Trainer

NAME = "run.json"


def command_line(argv: list[str]) -> str:
    """Return what was typed, ready to be pasted into a shell."""
    program = Path(argv[0]).name if argv else ""
    words = ["python", "-m", "cyclegan_fast"] if program == "__main__.py" else [program]
    return shlex.join([*words, *argv[1:]])


def versions() -> dict[str, str]:
    """Return what the run is made of."""
    import numpy
    import torch

    from cyclegan_fast import _extension
    from cyclegan_fast._version import __version__

    found = {
        "cyclegan_fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": platform.platform(),
    }
    try:
        build = _extension.build_info()
    except ImportError:
        return found
    found["commit"] = str(build["commit"])
    found["compiler"] = str(build["compiler"])
    return found


def device_name(trainer: Trainer) -> str:
    """Return the device in words: "CPU, 2 threads" or a GPU's name."""
    import torch

    if trainer.device.type == "cuda":
        return torch.cuda.get_device_name(trainer.device)
    threads = torch.get_num_threads()
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"CPU ({instructions}), {threads} thread{'s' * (threads != 1)}"


def read(run_dir: Path) -> dict[str, Any]:
    """Return a run's record, or an empty one."""
    try:
        record = json.loads((run_dir / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def begin(run_dir: Path, trainer: Trainer, command: str, data: dict[str, Any]) -> dict[str, Any]:
    """Write that the run was started, or started again; returns the record.

    Args:
        run_dir: the run's folder.
        trainer: before the first step of this start.
        command: what was typed.
        data: what was found, plain values.
    """
    record = read(run_dir) if trainer.step_count else {}
    record.setdefault("starts", [])
    record["versions"] = versions()
    record["device"] = device_name(trainer)
    record["precision"] = trainer.precision.name
    record["data"] = data
    record["starts"].append(
        {
            "command": command,
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "from_step": trainer.step_count,
        }
    )
    write(run_dir, record)
    return record


def end(run_dir: Path, record: dict[str, Any], result: RunResult, images: int) -> None:
    """Add how this start ended, and who served each op how often."""
    start = record["starts"][-1]
    start |= {
        "to_step": result.step,
        "seconds": round(result.seconds, 2),
        "images": images,
        "images_per_second": round(images / max(result.seconds, 1e-9), 3),
        "data_wait": round(result.data_wait, 4),
        "signal": result.signal,
    }
    record["steps"] = result.step
    record["total_steps"] = result.total_steps
    record["finished"] = result.finished
    record["served"] = backend.by_op(result.served)
    write(run_dir, record)


def write(run_dir: Path, record: dict[str, Any]) -> None:
    """Write the record, whole or not at all.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    data = json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"
    try:
        write_bytes(run_dir / NAME, data)
    except OSError as error:
        raise CheckpointError(f"cannot write {run_dir / NAME}: {error.strerror}") from error
