# SPDX-License-Identifier: MIT
"""Runs small enough for tests: 16x16 pictures, networks of some thousand weights."""

import torch

from cyclegan_fast.training import TrainConfig

SIDE = 16


def config(folder=".", **changes):
    """Options of a run of 3 epochs with tiny networks."""
    options = dict(
        checkpoints_dir=str(folder),
        name="run",
        netG="resnet_2blocks",
        ngf=2,
        ndf=2,
        netD="n_layers",
        n_layers_D=1,
        load_size=SIDE,
        crop_size=SIDE,
        n_epochs=2,
        n_epochs_decay=1,
        pool_size=4,
        num_threads=0,
        device="cpu",
        print_freq=2,
        save_latest_freq=4,
    )
    return TrainConfig(**{**options, **changes})


class Data:
    """Pictures that are a function of the step."""

    def __init__(self, steps=6, side=SIDE, dtype=torch.float32):
        self.steps, self.side, self.dtype = steps, side, dtype

    def steps_per_epoch(self, batch_size):
        return self.steps

    def batch(self, step, batch_size):
        generator = torch.Generator().manual_seed(step)
        shape = (batch_size, 3, self.side, self.side)
        pictures = [torch.rand(shape, generator=generator, dtype=self.dtype) for _ in "AB"]
        # Blotches of one colour: pure noise has no structure a generator could keep.
        pictures = [torch.nn.functional.avg_pool2d(p, 3, 1, 1) * 3 - 1 for p in pictures]
        return {"A": pictures[0].clamp(-1, 1), "B": -pictures[1].clamp(-1, 1)}
