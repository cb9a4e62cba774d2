# SPDX-License-Identifier: MIT
"""What a step needs of the device's memory, found before the first one.

The very step that will be trained is rehearsed with tensors that have shapes and no memory. So
there is no second description of it that could be wrong: what lives when follows from the code
that runs.
"""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cyclegan_fast import backend
from cyclegan_fast.ops.instance_norm_act.autograd import STEM
from cyclegan_fast.training.networks import Networks
from cyclegan_fast.training.pool import ImagePool
from cyclegan_fast.training.trainer import Trainer

if TYPE_CHECKING:
    from cyclegan_fast.training.config import TrainConfig
    from cyclegan_fast.training.engine import Engine

# In the first step the moments wait for gradients; in the second the old gradients are there too.
_STEPS = 2


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made within its block, for as long as they live.

    A view counts as the memory it looks into, once. What a kernel takes and gives back within its
    call is not seen.

    Attributes:
        now: bytes alive.
        peak: the most there ever were; may be set anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {s._cdata for s in _storages((args, kwargs))}  # of which a result may be a view
        for storage in _storages(made):
            if storage._cdata not in given and storage._cdata not in self._known:
                self._see(storage)
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def gone(_: Any) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


@dataclass(frozen=True)
class Footprint:
    """Bytes of a run on its device.

    Attributes:
        standing: what is there all the time, by name.
        step: the most that a step has beside it: activations, gradients, buffers.
    """

    standing: dict[str, int]
    step: int

    @property
    def peak(self) -> int:
        """All of it."""
        return sum(self.standing.values()) + self.step


def predict(
    trainer: Trainer, pictures: int = 0, *, ranks: int = 1, **changes: Any
) -> Footprint | str:
    """Return what a trainer's run will need of its device's memory, or why that cannot be said.

    Args:
        trainer: at any step; neither it nor a generator of chance is touched.
        pictures: bytes of the training pictures that lie on the device.
        ranks: processes that the run will have, where the trainer has not been told.
        changes: options that are to be other than the trainer's: batch_size, crop_size, precision,
            checkpoint.

    Returns:
        Live bytes of tensors. On top come what libraries take within their calls, above all
        cuDNN's workspaces, and what an allocator loses in rounding.
    """
    reason = _why_not(trainer)
    if reason is not None:
        return reason
    live = LiveBytes()
    with torch.random.fork_rng(devices=[]), backend.unrecorded(), FakeTensorMode(), live:
        double = _Rehearsal(trainer, changes)
        for _ in range(_STEPS):
            double.step(pictures_like(double.config, torch.empty))
    standing = _standing(double.engine)
    step = live.peak - sum(standing.values())
    if trainer.ranks is not None or ranks > 1:  # where gradients meet those of the other ranks
        standing["buckets"] = standing["weights"]
    if pictures:
        standing["pictures"] = pictures
    return Footprint(standing, step)


def pictures_like(config: TrainConfig, make: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Return a batch of the shapes that a run's batches have, each made by `make(shape)`."""
    source, target = ("A", "B") if config.direction == "AtoB" else ("B", "A")
    size = (config.crop_size, config.crop_size)
    return {
        source: make((config.batch_size, config.input_nc, *size)),
        target: make((config.batch_size, config.output_nc, *size)),
    }


def available(device: torch.device) -> int | None:
    """Return the bytes that a device has for this process, what it holds included; None: unknown.

    Args:
        device: a GPU, or the CPU: there it is what the system says it could give without swapping.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return found[0] * 1024 if found else None


class _Rehearsal(Trainer):
    """A trainer's double on the CPU, in the same arrangement, of tensors without memory.

    Args:
        trainer: whose networks are taken as they are, accelerated and in their layout.
        changes: see `predict`.
    """

    def __init__(self, trainer: Trainer, changes: dict[str, Any]) -> None:
        arrangement = trainer.engine.arrangement
        last = trainer.memory_format == torch.channels_last
        same = {
            "device": "cpu",
            "precision": trainer.precision.name,
            "memory_format": "channels_last" if last else "contiguous",
            "accelerate": True,  # else channels_last is refused, for what its values would be
            "merge": "on" if arrangement.merge else "off",
            "join": "on" if arrangement.by_hand else "off",
            "pair": "on" if arrangement.pair else "off",
            "branches": "off",
            "cuda_graph": "off",
        }
        config = dataclasses.replace(trainer.config, **{**same, **changes})
        nets = Networks(*(_without_memory(net) for _, net in trainer.networks.items()))
        super().__init__(config, nets)

    def _prepare(self, net: nn.Module) -> None:
        del net  # it has been

    def _copy(self, net: nn.Module) -> nn.Module:
        return _without_memory(net)


def _without_memory(net: nn.Module) -> nn.Module:
    """Return a copy of a network in the fake mode that is on."""

    def like(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

    doubles: dict[int, Any] = {id(buffer): like(buffer) for buffer in net.buffers()}
    for p in net.parameters():
        doubles[id(p)] = nn.Parameter(like(p), requires_grad=p.requires_grad)
    return copy.deepcopy(net, doubles)


def _why_not(trainer: Trainer) -> str | None:
    if not isinstance(trainer.engine.pool_A, ImagePool):
        return "it follows the pictures, which keep their sizes"
    half = trainer.precision.half or trainer.networks.dtype
    ours, cpu = (backend.resolve(STEM, kind, half) for kind in (trainer.device.type, "cpu"))
    if "reference" in (ours, cpu) and ours != cpu:
        return "that takes the compiled kernels of the CPU, which are not there"
    return None


def _standing(engine: Engine) -> dict[str, int]:
    optimizers = (engine.optimizer_G, engine.optimizer_D)
    nets = [net for _, net in engine.networks.items()]
    found: dict[str, Iterable[Tensor]] = {
        "weights": [t for net in nets for t in (*net.parameters(), *net.buffers())],
        "moments": [t for optimizer in optimizers for t in optimizer.state_dict().values()],
        "16-bit weights": [t for each in optimizers for t in each.halves.values()],
        "averages": [t for net in engine.averages or () for t in net.parameters()],
        "pools": [t for p in (engine.pool_A, engine.pool_B) for t in p.state_dict().values()],
    }
    sizes = {name: sum(t.untyped_storage().nbytes() for t in ts) for name, ts in found.items()}
    return {name: size for name, size in sizes.items() if size}
