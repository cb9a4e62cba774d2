# SPDX-License-Identifier: MIT
"""Every picture that two generators make of a batch, for eyes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cyclegan_fast.training.passes import Batch
from cyclegan_fast.training.precision import Precision


@torch.no_grad()
def sample(
    generators: tuple[nn.Module, nn.Module], batch: Batch, precision: Precision
) -> dict[str, Tensor]:
    """Return real_A, fake_B, rec_A, idt_B, real_B, fake_A, rec_B, idt_A; see `Trainer.sample`.

    Args:
        generators: G_A and G_B; left in the mode they were in.
        batch: the pictures, on the generators' device.
        precision: of the run.
    """
    real_A, real_B = batch
    G_A, G_B = generators
    training = G_A.training
    G_A.eval()
    G_B.eval()
    try:
        with precision.autocast():
            fake_B, fake_A = G_A(real_A), G_B(real_B)
            made = {
                "real_A": real_A,
                "fake_B": fake_B,
                "rec_A": G_B(fake_B),
                "real_B": real_B,
                "fake_A": fake_A,
                "rec_B": G_A(fake_A),
            }
            if real_A.shape[1] == real_B.shape[1]:
                made |= {"idt_B": G_B(real_A), "idt_A": G_A(real_B)}
    finally:
        G_A.train(training)
        G_B.train(training)
    return {name: picture.float().cpu() for name, picture in made.items()}
