# SPDX-License-Identifier: MIT
from __future__ import annotations

from torch import Tensor, nn

from cyclegan_fast.ops import l1_loss, lsgan_loss


class LSGANLoss(nn.Module):
    """Least-squares adversarial loss against the label of real or of fake images.

        loss = mean (pred - label)^2

    Args:
        real_label: label of real images.
        fake_label: label of generated images.

    See :func:`cyclegan_fast.ops.lsgan_loss`.
    """

    def __init__(self, real_label: float = 1.0, fake_label: float = 0.0) -> None:
        super().__init__()
        self.real_label = real_label
        self.fake_label = fake_label

    def forward(self, pred: Tensor, target_is_real: bool) -> Tensor:
        """Return the loss of scores of any shape, 0-d float32 (float64 for float64)."""
        return lsgan_loss(pred, self.real_label if target_is_real else self.fake_label)

    def extra_repr(self) -> str:
        """Describe the loss in a printed network."""
        return f"real_label={self.real_label}, fake_label={self.fake_label}"


class L1Loss(nn.Module):
    """Mean absolute difference of two images.

    See :func:`cyclegan_fast.ops.l1_loss`.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss of two tensors of one shape, 0-d float32 (float64 for float64)."""
        return l1_loss(a, b)
