# SPDX-License-Identifier: MIT
"""Everything a run's future depends on, as named tensors and plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cyclegan_fast.errors import CheckpointError, NonFiniteError
from cyclegan_fast.training import rank_state
from cyclegan_fast.training.runtime import dropout_seed

if TYPE_CHECKING:
    from cyclegan_fast.training.trainer import Trainer


def collect(trainer: Trainer) -> dict[str, Any]:
    """Return a trainer's state.

    Returns:
        "tensors": part -> name -> live tensor, where the parts are G_A, G_B, D_A, D_B (upstream's
        keys), ema_G_A, ema_G_B (with config.ema), optimizer, pools and run (losses, fp16 scale,
        PyTorch's generators, which dropout draws from).
        "values": step, epoch and the schedule's, plain values for JSON.
    """
    engine = trainer.engine
    tensors: dict[str, dict[str, Tensor]] = {
        name: dict(net.state_dict()) for name, net in _weights(trainer)
    }
    tensors["optimizer"] = {
        f"{name}/{key}": tensor
        for name, optimizer in _optimizers(trainer)
        for key, tensor in optimizer.state_dict().items()
    }
    tensors["pools"] = {
        f"{name}/{key}": tensor
        for name, pool in _pools(trainer)
        for key, tensor in pool.state_dict().items()
    }
    tensors["run"] = _prefixed("losses", engine.record.state_dict())
    if engine.scaler is not None:
        tensors["run"] |= _prefixed("scaler", engine.scaler.state_dict())
    tensors["run"] |= _generators(trainer.device)
    values = {
        "step": trainer.step_count,
        "images": trainer.images,
        "epoch": trainer.epoch,
        "schedule": trainer.schedule.state_dict(),
    }
    return {"tensors": tensors, "values": values}


def restore(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Put a trainer into a saved state.

    Nothing is changed unless all of it fits.

    Args:
        trainer: with networks of the same shapes.
        saved: of `collect`, or of `rank_state.collect`, tensors on any device.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape.
        ValueError: more pooled pictures than config.pool_size.
    """
    tensors, values = saved["tensors"], saved["values"]
    _check(collect(trainer)["tensors"], tensors)
    engine = trainer.engine
    rank, count = (trainer.ranks.rank, trainer.ranks.count) if trainer.ranks else (0, 1)
    pools = rank_state.own_pools(
        tensors["pools"], values.get("ranks", 1), rank, count, trainer.config.pool_size
    )
    for name, pool in _pools(trainer):
        pool.load_state_dict(_part(pools, name), trainer.device)
    for name, net in _weights(trainer):
        net.load_state_dict(tensors[name])
    for name, optimizer in _optimizers(trainer):
        optimizer.load_state_dict(_part(tensors["optimizer"], name))
    engine.record.load_state_dict(_part(tensors["run"], "losses"))
    if engine.scaler is not None and "scaler/scale" in tensors["run"]:
        engine.scaler.load_state_dict(_part(tensors["run"], "scaler"))
    trainer.schedule.load_state_dict(values["schedule"])
    trainer.step_count, trainer.images = values["step"], values["images"]
    generators = rank_state.own_generators(tensors["run"], rank)
    if not generators:
        torch.manual_seed(dropout_seed(trainer.config.seed, rank, trainer.step_count))
        return
    torch.set_rng_state(generators["cpu"].cpu())
    if trainer.device.type == "cuda" and "cuda" in generators:
        torch.cuda.set_rng_state(generators["cuda"].cpu(), trainer.device)


def check_finite(trainer: Trainer) -> None:
    """Raise unless every weight, moment and pooled picture is finite (one synchronisation).

    Raises:
        NonFiniteError: naming the first tensors that are not.
    """
    names, ends = [], []
    for part, tensors in collect(trainer)["tensors"].items():
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and tensor.numel():
                names.append(f"{part}: {name}")
                # Least and greatest pass nan on, and read the tensor once; isfinite does not.
                ends.append(torch.stack(tensor.detach().aminmax()).double().to(trainer.device))
    finite = torch.stack(ends).isfinite().all(dim=1).tolist()
    bad = [name for name, good in zip(names, finite, strict=True) if not good]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise NonFiniteError(
            f"after step {trainer.step_count}: {', '.join(bad[:3])}{more} not finite. The run "
            "stops here, and the saves from before stay as they are. Lower --lr or use "
            "--precision fp32."
        )


def _check(ours: Mapping[str, Mapping[str, Tensor]], saved: Mapping[str, Any]) -> None:
    for part, expected in ours.items():
        if part not in saved:
            raise CheckpointError(f"checkpoint: {part} is missing; it holds {', '.join(saved)}")
        if part in ("pools", "run"):
            continue  # their tensors come and go with the run
        found = saved[part]
        for name in {**expected, **found}:
            here = list(expected[name].shape) if name in expected else "nothing"
            there = list(found[name].shape) if name in found else "nothing"
            if here != there:
                raise CheckpointError(
                    f"checkpoint: {part} holds {there} at {name}, where this run's network has "
                    f"{here}: another architecture"
                )


def _weights(trainer: Trainer):
    yield from trainer.networks.items()
    if trainer.engine.averages is not None:
        yield from zip(("ema_G_A", "ema_G_B"), trainer.engine.averages, strict=True)


def _optimizers(trainer: Trainer):
    return ("G", trainer.engine.optimizer_G), ("D", trainer.engine.optimizer_D)


def _pools(trainer: Trainer):
    return ("fake_A", trainer.engine.pool_A), ("fake_B", trainer.engine.pool_B)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"generator/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["generator/cuda"] = torch.cuda.get_rng_state(device)
    return states
