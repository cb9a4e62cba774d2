# SPDX-License-Identifier: MIT
"""The device, the arithmetic and the layout of a run, chosen from its options."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Arithmetic of the networks; weights, statistics, losses and Adam are float32 in all cases.

    Attributes:
        name: "fp32", "bf16" or "fp16".
        device_type: "cpu" or "cuda".
    """

    name: str
    device_type: str

    @property
    def half(self) -> torch.dtype | None:
        """The 16-bit dtype of convolutions, or None for full precision."""
        return _HALF.get(self.name)

    @property
    def scaled(self) -> bool:
        """True where small gradients would vanish without loss scaling: fp16."""
        return self.name == "fp16"

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which the networks run forward."""
        if self.half is None:
            return torch.autocast(self.device_type, enabled=False)
        return torch.autocast(self.device_type, dtype=self.half)


def resolve_device(name: str) -> torch.device:
    """Return the device an option names; "auto" is the first GPU, or the CPU where there is none.

    Raises:
        ValueError: a GPU was asked for that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            built = torch.version.cuda
            why = (
                f"torch {torch.__version__} sees no GPU or driver"
                if built
                else (f"torch {torch.__version__} was built without CUDA")
            )
            raise ValueError(f"config: device must exist, got {name}: {why}. Use --device cpu.")
        if (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"config: device must be one of cuda:0 to cuda:{torch.cuda.device_count() - 1}, "
                f"got {name}"
            )
    return device


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Return the arithmetic an option names on a device.

    Args:
        name: "fp32", "bf16", "fp16", or "auto": bf16 where a GPU has it in hardware, fp16 on
            other GPUs, fp32 on a CPU.
        device: where the networks run.

    Raises:
        ValueError: bf16 was asked of a GPU that lacks it.
    """
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if name == "bf16" and not has_bf16:
            raise ValueError(
                f"config: precision must be fp16 or fp32 on {torch.cuda.get_device_name(device)}, "
                "which has no bf16, got bf16. Use --precision auto."
            )
        auto = "bf16" if has_bf16 else "fp16"
    else:
        auto = "fp32"
    return Precision(auto if name == "auto" else name, device.type)


def resolve_layout(name: str, precision: Precision, accelerated: bool) -> torch.memory_format:
    """Return the layout of weights and pictures an option names; "auto" is the faster one.

    The fused ops work in channels_last as well as in contiguous, and convolutions are faster
    there. Without them PyTorch's norms and pads copy to contiguous and back, so that in fp32 at
    full width contiguous wins (one core, resnet_9blocks, 128x128: 9.6 s a step against 11.1 s with
    the fused ops, 12.3 s against 11.1 s without; November 2026). On a CPU they cannot: at batch 1,
    PyTorch 2.11 to 2.14 computes a wrong gradient of F.instance_norm from a channels_last one.

    Args:
        name: "auto", "contiguous" or "channels_last".
        precision: of the run, and its device.
        accelerated: whether the networks run on the fused ops.

    Raises:
        ValueError: channels_last was asked for where PyTorch's own norms would train wrongly.
    """
    norms_err = not accelerated and precision.device_type == "cpu"
    if name == "channels_last" and norms_err:
        raise ValueError(
            "config: memory_format must be contiguous on a CPU without the fused ops, got "
            "channels_last, in which PyTorch's own instance norm has a wrong gradient at batch 1. "
            "Leave out --no_accelerate, or --memory_format."
        )
    if name == "auto":
        gains = accelerated or (precision.half is not None and not norms_err)
        name = "channels_last" if gains else "contiguous"
    return torch.channels_last if name == "channels_last" else torch.contiguous_format


def describe(precision: Precision, tf32: bool) -> str:
    """Return the arithmetic in words, for reports: "bf16", "fp32 (TF32 convolutions)", ..."""
    if precision.name == "fp32" and precision.device_type == "cuda":
        return "fp32 (TF32 convolutions)" if tf32 else "fp32 (no TF32)"
    return precision.name
