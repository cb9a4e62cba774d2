# SPDX-License-Identifier: MIT
"""Every option of a training run: upstream's names and defaults, and a few of our own."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

NetG = Literal[
    "resnet_9blocks", "resnet_6blocks", "resnet_4blocks", "resnet_2blocks", "unet_256", "unet_128"
]
NetD = Literal["basic", "n_layers", "pixel"]
Norm = Literal["instance", "batch", "none"]
InitType = Literal["normal", "xavier", "kaiming", "orthogonal"]
GanMode = Literal["lsgan", "vanilla", "wgangp"]
LrPolicy = Literal["linear", "step", "plateau", "cosine"]
LrEra = Literal["2025", "2020"]
LrRule = Literal["none", "linear", "sqrt"]
Direction = Literal["AtoB", "BtoA"]
Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
BackendName = Literal["auto", "reference", "native", "triton"]
LayoutName = Literal["auto", "contiguous", "channels_last"]
SaveFormat = Literal["safetensors", "both"]
Choice = Literal["auto", "on", "off"]
Checkpoint = Literal["off", "blocks"]


@dataclass(frozen=True)
class TrainConfig:
    """Options of one run, frozen; names and defaults are pytorch-CycleGAN-and-pix2pix's.

    What upstream switches off with ``no_X`` is the field ``X`` here (``flip``, ``dropout``).
    Frequencies count images, as upstream's do, and fire when a multiple is reached or passed.
    """

    dataroot: str = ""
    """Folder that holds trainA and trainB (and testA, testB)."""
    name: str = "experiment_name"
    """Name of the run: its folder is checkpoints_dir/name."""
    checkpoints_dir: str = "./checkpoints"
    """Folder of all runs."""
    phase: str = "train"
    """Prefix of the folders read: phase + A, phase + B."""

    input_nc: int = 3
    """Channels of domain A's pictures: 3 for RGB, 1 for grey."""
    output_nc: int = 3
    """Channels of domain B's pictures."""
    ngf: int = 64
    """Generator channels at full resolution."""
    ndf: int = 64
    """Discriminator channels of the first layer."""
    netG: NetG = "resnet_9blocks"  # noqa: N815 - upstream's spelling
    """Generator."""
    netD: NetD = "basic"  # noqa: N815
    """Discriminator: basic is the 70x70 PatchGAN, n_layers takes n_layers_D, pixel is 1x1."""
    n_layers_D: int = 3  # noqa: N815
    """Layers of the discriminator, for netD n_layers."""
    norm: Norm = "instance"
    """Normalisation layer."""
    init_type: InitType = "normal"
    """Initialisation of the weights."""
    init_gain: float = 0.02
    """Scale of the normal, xavier and orthogonal initialisation."""
    dropout: bool = False
    """Dropout in the generators."""

    direction: Direction = "AtoB"
    """BtoA swaps the roles of the two folders."""
    serial_batches: bool = False
    """Take the pictures in order rather than at random."""
    num_threads: int = 4
    """Threads that read pictures ahead."""
    batch_size: int = 1
    """Pictures of each domain per step, on each GPU."""
    load_size: int = 286
    """Scale pictures to this size."""
    crop_size: int = 256
    """Then crop to this size."""
    max_dataset_size: float = math.inf
    """At most this many pictures of each domain."""
    preprocess: Preprocess = "resize_and_crop"
    """Scaling and cropping."""
    flip: bool = True
    """Mirror pictures at random."""

    n_epochs: int = 100
    """Epochs at the initial learning rate."""
    n_epochs_decay: int = 100
    """Epochs over which the learning rate then falls to zero."""
    epoch_count: int = 1
    """Number of the first epoch."""
    max_steps: int = 0
    """Stop after this many steps; 0 for none but the epochs."""
    lr: float = 0.0002
    """Initial learning rate of Adam."""
    beta1: float = 0.5
    """First momentum of Adam; the second is 0.999."""
    lr_policy: LrPolicy = "linear"
    """How the learning rate falls."""
    lr_decay_iters: int = 50
    """For lr_policy step: epochs between two steps."""
    lr_era: LrEra = "2025"
    """Upstream stepped its schedule before each epoch until 2024, and after it since 2025."""
    lr_rule: LrRule = "none"
    """On several GPUs, what the learning rate is multiplied by: nothing, their number, its root."""
    gan_mode: GanMode = "lsgan"
    """Adversarial loss; wgangp has no gradient penalty, as upstream's CycleGAN has none."""
    pool_size: int = 50
    """Generated pictures remembered for the discriminators; 0 for none."""
    lambda_A: float = 10.0  # noqa: N815
    """Weight of the cycle loss A -> B -> A."""
    lambda_B: float = 10.0  # noqa: N815
    """Weight of the cycle loss B -> A -> B."""
    lambda_identity: float = 0.5
    """Weight of the identity losses, relative to the cycle losses'; 0 leaves them out."""
    ema: float = 0.0
    """Decay of an exponential moving average of the generators, e.g. 0.999; 0 for none."""

    print_freq: int = 100
    """Images between two reports of the losses."""
    display_freq: int = 400
    """Images between two sample pictures."""
    save_latest_freq: int = 5000
    """Images between two saves."""
    save_epoch_freq: int = 5
    """Epochs between two lasting copies of the weights."""
    save_by_iter: bool = False
    """Keep every save rather than the newest ones."""
    keep_last: int = 2
    """Newest saves kept."""
    keep_every: int = 0
    """Also keep every save whose step is a multiple of this; 0 for none."""
    save_format: SaveFormat = "safetensors"
    """both: lasting copies are also written as upstream's latest_net_G_A.pth files."""
    continue_train: bool = False
    """Go on from the newest good save in the run's folder."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N; on several GPUs each process takes its own."""
    precision: PrecisionName = "auto"
    """auto: bf16 on a GPU that has it, fp16 with loss scaling on others, fp32 on a CPU."""
    tf32: bool = True
    """Allow TF32 in fp32 convolutions on a GPU, as PyTorch and so upstream do."""
    backend: BackendName = "auto"
    """Who serves the fused ops; auto: as CYCLEGAN_FAST_BACKEND says, else the fastest."""
    accelerate: bool = True
    """Replace the execution of known layer patterns by the fused ops."""
    memory_format: LayoutName = "auto"
    """Layout of weights and activations."""
    cuda_graph: Choice = "auto"
    """Replay the whole step as one CUDA graph; auto: wherever that can be done."""
    merge: Choice = "auto"
    """Send pictures of one size through a network together, which changes nothing but speed; auto:
    where that is faster, and the networks have no dropout, batch norm or buffers."""
    join: Choice = "auto"
    """Take each weight's gradient once in a step, of all passes through its network, whose layers
    are walked by hand for it; changes nothing but speed. auto: where passes are merged."""
    pair: Choice = "auto"
    """Where weight gradients are joined, normalise in both generators, and in both discriminators,
    with one launch; changes nothing but speed. auto: on a GPU."""
    branches: Choice = "auto"
    """Give what does not need each other to a GPU side by side: the generators, the
    discriminators, the discriminators' Adam beside the generators' backward; changes nothing but
    speed. auto: on a GPU, where the networks have no dropout, batch norm or buffers."""
    checkpoint: Checkpoint = "off"
    """blocks: keep what goes from one residual block of a generator to the next, and run each block
    again in backward: less memory for large crops, at one forward more."""
    seed: int = 0
    """Seed of initialisation, data order, crops, flips, pools and dropout."""
    deterministic: bool = False
    """The same bits from run to run on one machine, at some cost on a GPU."""

    @property
    def run_dir(self) -> Path:
        """The run's folder, checkpoints_dir/name."""
        return Path(self.checkpoints_dir) / self.name

    @property
    def last_epoch(self) -> int:
        """Number of the last epoch."""
        return self.n_epochs + self.n_epochs_decay

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run, from epoch_count to the last epoch, or max_steps if fewer."""
        steps = (self.last_epoch - self.epoch_count + 1) * steps_per_epoch
        return min(steps, self.max_steps) if self.max_steps else steps

    def validate(self) -> TrainConfig:
        """Return self if every value can be trained with.

        Raises:
            ValueError: naming the option, what it must be, what it is, and what to do.
            TypeError: an option of the wrong type.
        """
        from cyclegan_fast.training import config_checks

        config_checks.check(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; infinity, which JSON lacks, as the string "inf"."""
        values = dataclasses.asdict(self)
        if math.isinf(self.max_dataset_size):
            values["max_dataset_size"] = "inf"
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Build from `to_dict`'s result.

        Raises:
            ValueError: an unknown option, with the nearest known one.
        """
        from cyclegan_fast.training import config_checks

        config_checks.check_names(cls, values)
        if values.get("max_dataset_size") == "inf":
            values = {**values, "max_dataset_size": math.inf}
        return cls(**values)
