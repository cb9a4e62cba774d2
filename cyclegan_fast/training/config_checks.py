# SPDX-License-Identifier: MIT
"""What a TrainConfig may hold, and what to advise where it holds something else."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclegan_fast.training.config import TrainConfig

# option -> smallest value
_AT_LEAST = {
    "input_nc": 1,
    "output_nc": 1,
    "ngf": 1,
    "ndf": 1,
    "n_layers_D": 1,
    "num_threads": 0,
    "batch_size": 1,
    "load_size": 1,
    "crop_size": 1,
    "max_dataset_size": 1,
    "n_epochs": 0,
    "n_epochs_decay": 0,
    "epoch_count": 1,
    "max_steps": 0,
    "lr_decay_iters": 1,
    "pool_size": 0,
    "lambda_A": 0,
    "lambda_B": 0,
    "lambda_identity": 0,
    "print_freq": 1,
    "display_freq": 1,
    "save_latest_freq": 1,
    "save_epoch_freq": 1,
    "keep_last": 1,
    "keep_every": 0,
    "seed": 0,
}
_MAY_BE_INFINITE = {"max_dataset_size"}

# Spellings met in upstream's documents, papers and older versions.
_ALIASES = {
    "norm": {
        "inst": "instance",
        "sync_instance": "instance",
        "syncbatch": "batch",
        "sync_batch": "batch",
    },
    "gan_mode": {"mse": "lsgan", "bce": "vanilla", "wgan": "wgangp", "wgan-gp": "wgangp"},
    "netG": {"resnet": "resnet_9blocks", "unet": "unet_256"},
    "netD": {"patch": "basic", "patchgan": "basic"},
    "precision": {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "half": "fp16"},
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the nearest known word, or nothing."""
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f" (did you mean {lower[near[0]]}?)" if near else ""


def check_names(cls: type, values: dict[str, Any]) -> None:
    """Raise ValueError for a key that is no option."""
    known = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise ValueError(f"config: {key} is no option{did_you_mean(key, known)}")


def check(config: TrainConfig) -> None:
    """Raise ValueError or TypeError for the first value that cannot be trained with."""
    _types_and_choices(config)
    _ranges(config)
    _sizes(config)
    if config.lambda_identity > 0 and config.input_nc != config.output_nc:
        raise ValueError(
            "config: lambda_identity must be 0 when input_nc and output_nc differ, got "
            f"{config.lambda_identity} with {config.input_nc} and {config.output_nc} channels: the "
            "identity loss feeds a picture of one domain to the generator of the other. "
            "Use --lambda_identity 0."
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        raise ValueError(f"config: device must be auto, cpu, cuda or cuda:N, got {config.device!r}")
    if config.name in ("", ".", "..") or "/" in config.name or "\\" in config.name:
        raise ValueError(
            f"config: name must be a plain folder name, got {config.name!r}; "
            "choose where runs are kept with --checkpoints_dir"
        )


def _types_and_choices(config: TrainConfig) -> None:
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        hint, value = hints[field.name], getattr(config, field.name)
        if typing.get_origin(hint) is typing.Literal:
            _choice(field.name, value, typing.get_args(hint))
            continue
        allowed = (int, float) if hint is float else (hint,)
        # bool is an int to Python, and `--batch_size True` a slip to a reader.
        if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
            raise TypeError(
                f"config: {field.name} must be {hint.__name__}, got {value!r} "
                f"({type(value).__name__})"
            )


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value in choices:
        return
    alias = _ALIASES.get(name, {}).get(str(value).lower())
    hint = f" (did you mean {alias}?)" if alias else did_you_mean(str(value), choices)
    raise ValueError(f"config: {name} must be one of {', '.join(choices)}, got {value!r}{hint}")


def _ranges(config: TrainConfig) -> None:
    for name, least in _AT_LEAST.items():
        value = getattr(config, name)
        if math.isnan(value) or value < least:
            raise ValueError(f"config: {name} must be {least} or more, got {value}")
        if math.isinf(value) and name not in _MAY_BE_INFINITE:
            raise ValueError(f"config: {name} must be finite, got {value}")
    for name in ("lr", "init_gain"):
        value = getattr(config, name)
        if not (0 < value < math.inf):
            raise ValueError(f"config: {name} must be above 0 and finite, got {value}")
    for name in ("beta1", "ema"):
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ValueError(f"config: {name} must be in [0, 1), got {value}")
    if config.seed >= 2**63:
        raise ValueError(f"config: seed must be below 2**63, got {config.seed}")
    if config.last_epoch < config.epoch_count:
        raise ValueError(
            "config: n_epochs + n_epochs_decay must reach epoch_count "
            f"({config.epoch_count}), got {config.n_epochs} + {config.n_epochs_decay}"
        )


def _sizes(config: TrainConfig) -> None:
    if config.preprocess not in ("resize_and_crop", "scale_width_and_crop", "crop"):
        return  # sizes follow the pictures
    if config.preprocess != "crop" and config.crop_size > config.load_size:
        raise ValueError(
            f"config: crop_size must be at most load_size ({config.load_size}), got "
            f"{config.crop_size}. Use --load_size {config.crop_size} or "
            f"--crop_size {config.load_size}."
        )
    multiple = int(config.netG.removeprefix("unet_")) if config.netG.startswith("unet") else 4
    if config.crop_size % multiple or config.crop_size < 8:
        near = max(multiple, 8, round(config.crop_size / multiple) * multiple)
        raise ValueError(
            f"config: crop_size must be a multiple of {multiple} for netG {config.netG}, got "
            f"{config.crop_size}. Use --crop_size {near}."
        )
    layers = {"basic": 3, "n_layers": config.n_layers_D}.get(config.netD)
    if layers is not None and config.crop_size < 3 * 2**layers:
        raise ValueError(
            f"config: crop_size must be {3 * 2**layers} or more for a discriminator of {layers} "
            f"layers, got {config.crop_size}. Use a larger crop, or --netD n_layers --n_layers_D "
            "with fewer layers, or --netD pixel."
        )
