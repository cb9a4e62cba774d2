# SPDX-License-Identifier: MIT
"""Count what one iteration asks of a GPU, launches and bytes, without one.

    python benchmarks/count_launches.py [--size 256] [--batch 1]

Ours and the plain iteration run once on the CPU in bf16, and every operation that reaches PyTorch's
dispatcher is noted with the bytes of its operands and results, each read or written once, and what
a second stage of ours reads again. What it launches on a GPU is taken to be: one kernel, or two
where ours has two stages; a convolution one for each of fprop, dgrad and wgrad, and one for the
gradient of its bias; an update of an optimiser one; nothing where only a view or empty memory is
made. A library may launch more than that, so the figures are those of the operations, not of a
device. Beside them stands the least there is (least_bytes.py), and what is not in it is marked. A
last contender has all of its convolutions in Triton (count_triton.py). The record:
results/launches.json.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import count_convolutions as convolutions
import count_norms as norms
import harness
import least_bytes
import torch
from count_convolutions import size
from count_triton import in_triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from cyclegan_fast import backend
from cyclegan_fast.benchmark.ours import OursIteration
from cyclegan_fast.benchmark.plain import PlainIteration, Setup
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.adam import triton_kernels

IN_TRITON = "ours bf16, convolutions in Triton"
ON_LOAD = f"{IN_TRITON}, norms on load"
RECORD = harness.RESULTS / "launches.json"
# Nothing is launched where memory is only described or set aside.
NO_LAUNCH = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
    "alias",
    "_unsafe_view",
    "_reshape_alias",
    "lift_fresh",
}
# Ours in two stages on a GPU: partial sums and their sum. A norm's number is asked of its kernels.
TWO_STAGES = {
    "l1_loss",
    "lsgan_loss",
    "generator_loss",
    "adam_",  # steps counted; weights updated
}
# What least_bytes.py counts too; every other operation is a term beyond it.
IN_THE_LEAST = {
    "fprop",
    "dgrad",
    "wgrad",
    "instance_norm_act",
    "instance_norm_act_backward",
    "instance_norm_act_fwd",
    "instance_norm_act_bwd",
    "instance_norm_act_finish",
    "instance_norm_act_bwd_finish",
    "fprop left for norms",
    "dgrad left for norms",
    "dgrad norms on load",
    "wgrad norms on load",
    "generator_loss",
    "lsgan_loss",
    "lsgan_loss_backward",
    "adam_",
    "add",  # weight gradients of several passes, accumulated
}
OURS = {
    "loss": "losses",
    "norm": "norms",
    "adam": "optimisers",
    "pool": "pools",
}  # by a part of the op's name
GROUPS = {
    "copy_": "copies and casts",
    "_to_copy": "copies and casts",
    "clone": "copies and casts",
    "zero_": "fills",
    "zeros": "fills",
    "zeros_like": "fills",
    "new_zeros": "fills",
    "fill_": "fills",
    "ones": "fills",
    "ones_like": "fills",
    "full_like": "fills",
}


@dataclass
class Group:
    """Operations of one kind."""

    launches: int = 0
    bytes: int = 0
    names: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    moved: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, launches: int, moved: int) -> None:
        """Note one operation."""
        self.launches += launches
        self.bytes += moved
        self.names[name] += launches
        self.moved[name] += moved


class Counter(TorchDispatchMode):
    """Notes every operation while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[str, Group] = defaultdict(Group)

    def note(self, group: str, name: str, launches: int, moved: int) -> None:
        """Note an operation that the dispatcher does not see."""
        self.groups[group].add(name, launches, moved)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation, and note it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        compute = _uncomputed if "conv" in name else lambda f, *a, **k: f(*a, **k)
        result = compute(func, *args, **kwargs)
        if func.namespace == "cyclegan_fast_C":
            # A walk by hand calls the kernels themselves.
            if name.startswith("reflect_pad2d"):
                group = "pictures put in" if name.endswith("copy") else "pads"
                self.groups[group].add(name, 1, _bytes(args))
            elif name.endswith(("_fwd", "_bwd", "_pair")):  # the last argument is the workspace
                calls = norms.calls_of_a_pair(args) if name.endswith("_pair") else [args]
                name = name.removesuffix("_pair")
                moved = sum(_bytes(call[:-1]) + norms.read_again(name, call) for call in calls)
                self.groups["norms"].add(name, norms.pair_launches(name, calls), moved)
        elif func.namespace == "cyclegan_fast" and name.startswith("reflect_conv2d"):
            # One operation to the dispatcher, which does not see what is called inside.
            forward = name == "reflect_conv2d"
            counted = (
                convolutions.reflect_conv2d if forward else convolutions.reflect_conv2d_backward
            )
            for group, part, moved in counted(args, result):
                self.groups[group].add(part, 1, moved)
        elif func.namespace == "cyclegan_fast":
            launches = norms.launches(name, args) if "norm" in name else 1 + (name in TWO_STAGES)
            group = next((group for part, group in OURS.items() if part in name), "pads")
            moved = _bytes(args, kwargs, result) + norms.read_again(name, args, result)
            if name == "pool_exchange":  # of the pool a row for each picture, read and written
                moved = 4 * _bytes(result)
            if result is None:  # it writes into its arguments; copies it writes and never reads
                moved += _bytes(*_written(func, args, kwargs)) - _bytes(args[10])
            self.groups[group].add(name, launches, moved)
        elif name == "convolution":
            self.groups["convolutions"].add("fprop", 1, _bytes(args, kwargs, result))
        elif name == "convolution_backward":
            for part, moved in convolutions.convolution_backward(args, result):
                self.groups["convolutions"].add(part, 1, moved)
        elif not func.is_view and name not in NO_LAUNCH:
            group = "optimisers" if "_fused_adam" in name else GROUPS.get(name, "other")
            moved = _bytes(args, kwargs, result)
            if result is None:  # it writes into its arguments
                moved += _bytes(*_written(func, args, kwargs))
            self.groups[group].add(name, 1, moved)
        return result


def _written(func, args, kwargs) -> list:
    declared = func._schema.arguments
    given = dict(zip((a.name for a in declared), args, strict=False)) | kwargs
    # An optimiser declares its gradients as written, which they are only where a scaler asks it to.
    names = (a.name for a in declared if a.alias_info and a.name != "grads")
    return [given[name] for name in names if name in given]


def _bytes(*values) -> int:
    tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor)]
    return sum(map(size, tensors))


def count(
    iteration: Callable[[], object], *, triton: bool = False, on_load: bool = False
) -> dict[str, Group]:
    """Count one iteration, after one that sets up what later ones keep.

    Args:
        iteration: makes one.
        triton: let Triton's kernels do its convolutions.
        on_load: and the norms beside them, while they load.
    """
    with _as_on_a_gpu():
        for _ in range(2):
            counter = Counter()
            with counter, in_triton(counter.note, on_load=on_load) if triton else nullcontext():
                iteration()
    return counter.groups


def _uncomputed(func, *args, **kwargs):
    """What a convolution would give, uncomputed: its shape and strides count, its values do not."""
    if func.overloadpacket.__name__ == "convolution_backward":
        grad_y, x, weight = args[:3]
        wanted = args[-1]
        bias = grad_y.new_zeros(grad_y.shape[1])
        made = (torch.zeros_like(x), torch.zeros_like(weight), bias)
        return tuple(grad if want else None for grad, want in zip(made, wanted, strict=True))
    meta, options = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs))
    made = func(*meta, **options)  # of reflect_conv2d_backward, three
    made = tree_map_only(Tensor, lambda t: torch.zeros_like(t, device="cpu"), made)
    if func.overloadpacket.__name__ == "convolution" and torch.channels_last in map(
        _common.memory_format, args[:2]
    ):
        # As cuDNN does; without memory, the layout of the result is another.
        made = made.contiguous(memory_format=torch.channels_last)
    return made


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Let Adam be the one that `auto` takes on a GPU; it is counted, and updates nothing."""
    probes, preference = backend._probes["adam"], backend._preference["adam"]
    update = triton_kernels.adam_update
    backend.register("adam", {"triton": lambda *_: None}, {"cpu": ("triton",)})
    triton_kernels.adam_update = lambda *_: None
    try:
        yield
    finally:
        backend.register("adam", probes, preference)
        triton_kernels.adam_update = update


def main() -> None:
    """Print and record the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    shape = (options.batch, 3, options.size, options.size)
    images = tuple(torch.rand(2, *shape) * 2 - 1)
    contenders: dict[str, Callable[[], object]] = {
        "plain bf16": PlainIteration(Setup(precision="bf16"), *images),
        "ours bf16": OursIteration("bf16", graph=False, images=images, pair="on"),
        "ours bf16, each pass alone": OursIteration(
            "bf16", graph=False, images=images, merge="off"
        ),
        IN_TRITON: OursIteration("bf16", graph=False, images=images, pair="on"),
        ON_LOAD: OursIteration("bf16", graph=False, images=images, pair="on"),
    }
    record: dict[str, dict] = {}
    for contender, iteration in contenders.items():
        groups = count(
            iteration, triton=contender in (IN_TRITON, ON_LOAD), on_load=contender == ON_LOAD
        )
        record[contender] = {
            "launches": sum(g.launches for g in groups.values()),
            "gigabytes": round(sum(g.bytes for g in groups.values()) / 1e9, 3),
            "groups": {
                name: {
                    "launches": group.launches,
                    "gigabytes": round(group.bytes / 1e9, 3),
                    "operations": {
                        operation: {
                            "launches": group.names[operation],
                            "megabytes": round(moved / 1e6, 3),
                        }
                        for operation, moved in sorted(
                            group.moved.items(), key=lambda item: -item[1]
                        )
                    },
                }
                for name, group in sorted(groups.items(), key=lambda item: -item[1].bytes)
            },
        }
        _show(contender, record[contender])
    sizes = options.size, options.batch
    for name, least in (
        ("least", least_bytes.least(*sizes)),
        (
            "least, joined, statistics from convolutions",
            least_bytes.least_joined(*sizes, on_load=False),
        ),
        ("least, joined, norms on load", least_bytes.least_joined(*sizes, on_load=True)),
    ):
        record[name] = {
            group: {"launches": launches, "gigabytes": round(moved / 1e9, 3)}
            for group, (launches, moved) in least.items()
        }
        whole = [
            sum(row[key] for row in record[name].values()) for key in ("launches", "gigabytes")
        ]
        print(f"{name}: {whole[0]} launches, {whole[1]:.3f} GB")
        for group, row in record[name].items():
            print(f"  {row['launches']:5} {row['gigabytes']:8.3f} GB  {group}")
    section = f"{options.size} batch {options.batch}"
    records = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    records[section] = {"machine": harness.machine("cpu"), "rows": record}
    RECORD.write_text(json.dumps(records, indent=1) + "\n")
    print(f"written to {RECORD}")


def _show(contender: str, row: dict) -> None:
    print(f"{contender}: {row['launches']} launches, {row['gigabytes']} GB")
    for name, group in row["groups"].items():
        print(f"  {group['launches']:5} {group['gigabytes']:8.3f} GB  {name}")
        for operation, part in group["operations"].items():
            extra = "" if operation in IN_THE_LEAST else "  (not in the least)"
            print(f"        {part['launches']:5} {part['megabytes']:9.3f} MB  {operation}{extra}")


if __name__ == "__main__":
    main()
