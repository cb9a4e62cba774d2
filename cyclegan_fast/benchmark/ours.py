# SPDX-License-Identifier: MIT
"""Our own contender: the package's Trainer as `train` runs it, on fixed images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from cyclegan_fast import fusion
from cyclegan_fast.benchmark.plain import PlainIteration
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.runtime import configured
from cyclegan_fast.training.trainer import Trainer


class OursIteration:
    """The Trainer's step; calling it makes one iteration.

    Args:
        precision: "fp32", "bf16" or "fp16".
        graph: replay the step as a CUDA graph, as `train` does on a GPU by default.
        images: real A and real B, on the device.
        merge: join passes, as the option of `train`.
        pair: normalise in two networks at once, likewise.
    """

    def __init__(
        self,
        precision: Literal["fp32", "bf16", "fp16"],
        *,
        graph: bool,
        images: tuple[Tensor, Tensor],
        merge: Literal["auto", "on", "off"] = "auto",
        pair: Literal["auto", "on", "off"] = "auto",
    ) -> None:
        real_a, real_b = images
        self.config = TrainConfig(
            dataroot="benchmark",
            device=str(real_a.device),
            precision=precision,
            batch_size=len(real_a),
            load_size=real_a.shape[-1],
            crop_size=real_a.shape[-1],
            cuda_graph="on" if graph else "off",
            merge=merge,
            pair=pair,
        )
        with configured(self.config):
            self.trainer = Trainer(self.config)
        layout = self.trainer.memory_format
        self.batch = {
            "A": real_a.contiguous(memory_format=layout),
            "B": real_b.contiguous(memory_format=layout),
        }

    def copy_weights(self, plain: PlainIteration) -> None:
        """Start from the plain iteration's weights."""
        for name, net in self.trainer.networks.items():
            net.load_state_dict(getattr(plain, name.lower()).state_dict())

    def __call__(self) -> None:
        """Make one iteration."""
        self._losses = self.trainer.step(self.batch)

    def losses(self) -> dict[str, float]:
        """The last iteration's losses by the names of plain.PlainIteration."""
        values = {name: value.item() for name, value in self._losses.items()}
        parts = ("G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B")
        return {"G": sum(values[part] for part in parts)} | {
            name: values[name] for name in ("D_A", "D_B")
        }

    def explain(self) -> str:
        """What was fused in the generators."""
        return str(fusion.explain(self.trainer.networks.G_A))
