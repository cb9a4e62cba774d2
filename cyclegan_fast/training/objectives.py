# SPDX-License-Identifier: MIT
"""What a step minimises, as a function of what the networks have made."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import ops
from cyclegan_fast.training.losses import FAKE, REAL, adversarial_loss, reconstruction_loss
from cyclegan_fast.training.passes import Batch, Weights

# In the order in which ops.generator_loss numbers them.
GENERATOR_LOSSES = ("G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B")


def generator_objective(
    predictions: tuple[Tensor, Tensor],
    reconstructions: tuple[Tensor, Tensor],
    identities: tuple[Tensor | None, Tensor | None],
    batch: Batch,
    weights: Weights,
    gan_mode: str,
    *,
    scale: Tensor | None,
    tanh: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the generators' total and its terms.

        total = scale (gan(pred_A, real) + gan(pred_B, real)
                       + cycle_A |rec_A - A| + cycle_B |rec_B - B|
                       + identity_A |idt_A - B| + identity_B |idt_B - A|)

    Args:
        predictions: D_A(fake_B) and D_B(fake_A), any shape.
        reconstructions: rec_A and rec_B, [N, C, H, W].
        identities: idt_A and idt_B, likewise; None where the loss is left out.
        batch: the pictures.
        weights: of the reconstruction losses.
        gan_mode: see `adversarial_loss`.
        scale: 0-d (fp16's loss scale), or None for 1.
        tanh: reconstructions and identities lack the tanh that the networks end in; lsgan alone.

    Gradients: first order in what the networks have made.
    """
    (pred_A, pred_B), (rec_A, rec_B), (idt_A, idt_B) = predictions, reconstructions, identities
    if gan_mode == "lsgan":
        pictures = (rec_A, rec_B, idt_A, idt_B, *batch)
        total, values = ops.generator_loss(
            pred_A, pred_B, *pictures, weights.together, scale=scale, tanh=tanh
        )
        return total, dict(zip(GENERATOR_LOSSES, values.unbind(), strict=True))
    losses = {
        "G_A": adversarial_loss(pred_A, REAL, gan_mode),
        "G_B": adversarial_loss(pred_B, REAL, gan_mode),
        "cycle_A": reconstruction_loss(rec_A, batch.real_A, weights.cycle_A),
        "cycle_B": reconstruction_loss(rec_B, batch.real_B, weights.cycle_B),
    }
    if idt_A is not None and weights.identity_A is not None:
        losses["idt_A"] = reconstruction_loss(idt_A, batch.real_B, weights.identity_A)
    if idt_B is not None and weights.identity_B is not None:
        losses["idt_B"] = reconstruction_loss(idt_B, batch.real_A, weights.identity_B)
    total = torch.stack(list(losses.values())).sum()
    for name in ("idt_A", "idt_B"):
        losses.setdefault(name, torch.zeros_like(total))
    return total if scale is None else total * scale, losses


def discriminator_objective(of_real: Tensor, of_shown: Tensor, gan_mode: str) -> Tensor:
    """Return a discriminator's loss: the mean of its loss on real and on generated pictures.

    Args:
        of_real: its predictions for real pictures, any shape.
        of_shown: for what the pool of generated pictures has shown.
        gan_mode: see `adversarial_loss`.

    Gradients: first order in the predictions.
    """
    on_real = adversarial_loss(of_real, REAL, gan_mode)
    on_shown = adversarial_loss(of_shown, FAKE, gan_mode)
    return (on_real + on_shown) * 0.5
