# SPDX-License-Identifier: MIT
"""The process-wide switches of a run, set at its start and put back at its end."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cyclegan_fast import backend, draws
from cyclegan_fast._version import __version__
from cyclegan_fast.ops.reflect_conv2d import measured
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.precision import resolve_device


@contextmanager
def configured(config: TrainConfig, rank: int = 0) -> Iterator[None]:
    """Seed dropout, choose back end, TF32, cuDNN's search and deterministic algorithms.

    Everything is as before after the block, but for PyTorch's generators, which have moved on.

    Args:
        config: seed, backend, tf32, deterministic, preprocess and device.
        rank: of this process; each has dropout of its own.
    """
    device = resolve_device(config.device)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32)
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.manual_seed(dropout_seed(config.seed, rank))
    # A search per size costs more than it brings when every picture has its own size.
    varying = config.preprocess in ("scale_width", "none")
    cudnn.benchmark = not varying and not config.deterministic
    cudnn.allow_tf32 = matmul.allow_tf32 = config.tf32
    if config.deterministic:
        cudnn.deterministic = True
        if device.type == "cuda":
            # Read when cuBLAS starts; without it PyTorch refuses deterministic matrix products.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    # auto leaves in force what the environment asks for.
    chosen = backend.policy() if config.backend == "auto" else config.backend
    try:
        with backend.use_backend(chosen):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)


def dropout_seed(seed: int, rank: int, step: int = 0) -> int:
    """Return what to seed a rank's generators with; rank 0 begins with the seed itself."""
    if rank == 0 and step == 0:
        return seed
    return int(draws.integers(seed, f"dropout/{rank}", step, 1, 2**32)[0])


def fingerprint(device: torch.device) -> dict[str, Any]:
    """Return what the bits of a run depend on besides its options and its data.

    The same options on a machine with the same fingerprint give the same bits on a CPU, and on a
    GPU with deterministic=True.
    """
    facts: dict[str, Any] = {
        "cyclegan_fast": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()
        facts["convolutions"] = measured.digest(device)
    return facts
