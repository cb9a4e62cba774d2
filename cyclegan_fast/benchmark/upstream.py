# SPDX-License-Identifier: MIT
"""An unmodified checkout of pytorch-CycleGAN-and-pix2pix, built and stepped by its own code."""

from __future__ import annotations

import contextlib
import importlib
import io
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor


class UpstreamIteration:
    """Upstream's own CycleGANModel on fixed images; calling it makes one iteration.

    Args:
        checkout: folder of the checkout; its `models` and `util` packages are imported.
        real_a: [N, 3, H, W] images of domain A, float32 in [-1, 1].
        real_b: the same of domain B.
        seed: PyTorch's seed before the networks are made.

    Raises:
        ValueError: the folder is no such checkout.
    """

    def __init__(self, checkout: Path, real_a: Tensor, real_b: Tensor, seed: int = 0) -> None:
        if (reason := why_not(checkout)) is not None:
            raise ValueError(reason)
        sys.path.insert(0, str(checkout))
        try:
            model_class = importlib.import_module("models.cycle_gan_model").CycleGANModel
        finally:
            sys.path.remove(str(checkout))
        torch.manual_seed(seed)
        with contextlib.redirect_stdout(io.StringIO()):
            self.model = model_class(_defaults(real_a.device))
            for name in self.model.model_names:
                net = getattr(self.model, f"net{name}")
                importlib.import_module("models.networks").init_net(net)
        self.model.set_input({"A": real_a, "B": real_b, "A_paths": [], "B_paths": []})

    def __call__(self) -> None:
        """Make one iteration."""
        self.model.optimize_parameters()

    def losses(self) -> dict[str, float]:
        """The last iteration's losses by the names of plain.PlainIteration."""
        model = self.model
        return {
            "G": model.loss_G.item(),
            "D_A": model.loss_D_A.item(),
            "D_B": model.loss_D_B.item(),
        }


def why_not(checkout: Path) -> str | None:
    """Return why a folder is no such checkout, or None."""
    if (checkout / "models" / "cycle_gan_model.py").is_file():
        return None
    return (
        f"{checkout} must be a checkout of pytorch-CycleGAN-and-pix2pix; "
        "it has no models/cycle_gan_model.py"
    )


def commit(checkout: Path) -> str:
    """The checkout's commit, "+modified" if a Python file differs from it.

    Where git cannot say (a copy that kept only .git/HEAD), "+unverified".
    """
    try:

        def git(*arguments: str) -> str:
            command = ["git", "-C", str(checkout), *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py").strip()
        return git("rev-parse", "HEAD").strip() + ("+modified" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        head = checkout / ".git" / "HEAD"
        return (head.read_text().strip() if head.is_file() else "unknown") + "+unverified"


def _defaults(device: torch.device) -> Namespace:
    """The options that its command line gives with `--model cycle_gan` and nothing else."""
    return Namespace(
        isTrain=True,
        device=device,
        checkpoints_dir="checkpoints",
        name="benchmark",
        preprocess="resize_and_crop",
        direction="AtoB",
        input_nc=3,
        output_nc=3,
        ngf=64,
        ndf=64,
        netG="resnet_9blocks",
        netD="basic",
        n_layers_D=3,
        norm="instance",
        no_dropout=True,
        init_type="normal",
        init_gain=0.02,
        gan_mode="lsgan",
        pool_size=50,
        lr=2e-4,
        beta1=0.5,
        lambda_A=10.0,
        lambda_B=10.0,
        lambda_identity=0.5,
    )
