# SPDX-License-Identifier: MIT
"""The losses of CycleGAN, each a 0-d float32 tensor (float64 for float64)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast import ops

REAL, FAKE = True, False


def adversarial_loss(prediction: Tensor, target: bool, gan_mode: str) -> Tensor:
    """How far a discriminator's map of predictions is from "real" or "fake".

        lsgan:   mean (p - t)^2
        vanilla: mean of the cross entropy of sigmoid(p) and t
        wgangp:  -mean p for real, mean p for fake; no gradient penalty, as upstream's CycleGAN

    Args:
        prediction: any shape, raw (no sigmoid), floating-point.
        target: `REAL` (t = 1) or `FAKE` (t = 0).
        gan_mode: "lsgan", "vanilla" or "wgangp".

    Raises:
        ValueError: unknown gan_mode.

    Gradients: first order in prediction.

    Source: lsgan Mao et al. 2017, arXiv:1611.04076; vanilla Goodfellow et al. 2014,
    arXiv:1406.2661; wgangp Arjovsky et al. 2017, arXiv:1701.07875.
    """
    if gan_mode == "lsgan":
        return ops.lsgan_loss(prediction, target)
    if prediction.dtype != torch.float64:
        prediction = prediction.float()
    if gan_mode == "vanilla":
        label = prediction.new_full((), float(target)).expand_as(prediction)
        return F.binary_cross_entropy_with_logits(prediction, label)
    if gan_mode == "wgangp":
        return -prediction.mean() if target else prediction.mean()
    raise ValueError(
        f"adversarial_loss: gan_mode must be lsgan, vanilla or wgangp, got {gan_mode!r}"
    )


def reconstruction_loss(picture: Tensor, original: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute difference: the cycle-consistency and the identity loss.

    Args:
        picture: [N, C, H, W], what came back.
        original: [N, C, H, W], what should have.
        weight: 0-d, on the same device.

    Gradients: first order in picture.

    Source: Zhu et al. 2017, arXiv:1703.10593, equation 2 and section 5.2.
    """
    return ops.l1_loss(picture, original) * weight
