# SPDX-License-Identifier: MIT
"""Find the generator that a set of tensors belongs to, from names and shapes alone.

Files come from many years and programs: with or without DataParallel's and torch.compile's
prefixes, with the running statistics that instance norm had until torch 0.4, with or without biases
in front of the norms, with affine instance norms, with dropout (which shifts indices). None says
what it is, but shapes do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cyclegan_fast.errors import WeightsError

_PREFIXES = ("module.", "_orig_mod.")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_RESNET_BLOCK = re.compile(r"model\.(\d+)\.conv_block\.(\d+)\.weight")


@dataclass(frozen=True)
class Architecture:
    """A generator of the CycleGAN family.

    Attributes:
        kind: "resnet" or "unet".
        input_nc: channels in.
        output_nc: channels out.
        ngf: filters of the outermost layer.
        depth: residual blocks of a resnet, halvings of a U-Net.
        norm: "instance", "batch" or "none".
        affine: instance norms have weight and bias.
        dropout: the residual blocks have dropout (a U-Net's leaves no trace in its tensors).
        padding: "reflect" or "zero".
    """

    kind: str
    input_nc: int
    output_nc: int
    ngf: int
    depth: int
    norm: str
    affine: bool = False
    dropout: bool = False
    padding: str = "reflect"

    @property
    def name(self) -> str:
        """The name that ``--netG`` takes, e.g. "resnet_9blocks" or "unet_256"."""
        return f"resnet_{self.depth}blocks" if self.kind == "resnet" else f"unet_{1 << self.depth}"

    @property
    def multiple(self) -> int:
        """Height and width of its input are multiples of this."""
        return 4 if self.kind == "resnet" else 1 << self.depth

    @property
    def smallest(self) -> int:
        """The least height and width: a resnet mirrors one pixel at a quarter of the size."""
        return 8 if self.kind == "resnet" else self.multiple

    def __str__(self) -> str:
        norm = f"affine {self.norm}" if self.affine else self.norm
        extras = ", dropout" if self.dropout else ""
        extras += ", zero padding" if self.padding == "zero" else ""
        return (
            f"{self.name} (ngf {self.ngf}, {norm} norm{extras}, "
            f"{self.input_nc} -> {self.output_nc} channels)"
        )

    def build(self) -> nn.Module:
        """Return the network with weights of no meaning, to be loaded."""
        from cyclegan_fast.models import ResnetGenerator, UnetGenerator

        if self.kind == "unet":
            net: nn.Module = UnetGenerator(
                self.input_nc, self.output_nc, self.depth, ngf=self.ngf, norm=self.norm
            )
        else:
            net = ResnetGenerator(
                self.input_nc,
                self.output_nc,
                ngf=self.ngf,
                norm=self.norm,
                use_dropout=self.dropout,
                n_blocks=self.depth,
                padding_type=self.padding,
            )
        if self.affine:
            for module in list(net.modules()):
                for name, child in module.named_children():
                    if isinstance(child, nn.InstanceNorm2d):
                        setattr(module, name, nn.InstanceNorm2d(child.num_features, affine=True))
        return net


@dataclass
class Fitted:
    """Tensors that a network of this architecture loads strictly, and what was done to them."""

    architecture: Architecture
    state: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def fit(tensors: Mapping[str, Tensor], norm: str | None = None) -> Fitted:
    """Return the architecture of a generator's tensors and the state dict in today's names.

    Args:
        tensors: names to tensors, of any era; not changed.
        norm: "instance" or "batch", for files of 2017 that could be either; None decides alone.

    Returns:
        Architecture, state dict and notes on what was renamed, dropped or added.

    Raises:
        WeightsError: no generator of the family, or tensors that do not fit together.
    """
    state, notes = _todays_names(tensors)
    architecture = _resnet(state, norm, notes) or _unet(state, norm, notes)
    if architecture is None:
        raise WeightsError(_what_it_is(state))
    with torch.device("meta"):
        expected = {
            key: tuple(value.shape) for key, value in architecture.build().state_dict().items()
        }
    _modernise(state, expected, architecture, notes)
    missing = sorted(expected.keys() - state.keys())
    surplus = sorted(state.keys() - expected.keys())
    wrong = sorted(
        k for k in expected.keys() & state.keys() if tuple(state[k].shape) != expected[k]
    )
    if missing or surplus or wrong:
        problems = [f"misses {_some(missing)}"] if missing else []
        problems += [f"has {_some(surplus)} besides"] if surplus else []
        problems += [
            f"has {key} of shape {tuple(state[key].shape)} instead of {expected[key]}"
            for key in wrong[:1]
        ]
        raise WeightsError(f"it looks like {architecture}, but it {' and '.join(problems)}")
    return Fitted(architecture, {key: state[key] for key in expected}, notes)


def _todays_names(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    state = dict(tensors)
    notes = []
    while prefix := next(
        (p for p in _PREFIXES if state and all(k.startswith(p) for k in state)), ""
    ):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        notes.append(f"prefix {prefix!r} removed")
    renamed = {
        re.sub(r"^(model\.\d+)\.block\.", r"\1.conv_block.", key): value
        for key, value in state.items()
    }
    if renamed.keys() != state.keys():
        notes.append("'block' read as 'conv_block'")
    return renamed, notes


def _resnet(state: Mapping[str, Tensor], norm: str | None, notes: list[str]) -> Architecture | None:
    first = state.get("model.1.weight")
    if first is None or first.ndim != 4 or first.shape[2:] != (7, 7):
        return None
    places = [
        (int(match[1]), int(match[2]))
        for key, value in state.items()
        if (match := _RESNET_BLOCK.fullmatch(key)) and value.ndim == 4
    ]
    blocks = sorted({block for block, _ in places})
    inside = sorted({place for _, place in places})
    last = state.get(f"model.{17 + len(blocks)}.weight")
    if blocks != list(range(10, 10 + len(blocks))) or last is None or last.ndim != 4:
        return None
    # Convolutions at 1 and 5 of a block; dropout moves the second one up, and zero padding, which
    # is no layer of its own, moves them down.
    layouts = {
        (): (False, "reflect"),
        (1, 5): (False, "reflect"),
        (1, 6): (True, "reflect"),
        (0, 3): (False, "zero"),
        (0, 4): (True, "zero"),
    }
    layout = layouts.get(tuple(inside))
    if layout is None:
        return None
    kind, affine = _norm(state, "model.1.bias", "model.2", norm, notes)
    return Architecture(
        kind="resnet",
        input_nc=first.shape[1],
        output_nc=last.shape[0],
        ngf=first.shape[0],
        depth=len(blocks),
        norm=kind,
        affine=affine,
        dropout=layout[0],
        padding=layout[1],
    )


def _unet(state: Mapping[str, Tensor], norm: str | None, notes: list[str]) -> Architecture | None:
    first, last = state.get("model.model.0.weight"), state.get("model.model.3.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        return None
    level, depth = "model.model.1.model.", 1
    while f"{level}1.weight" in state:
        level, depth = f"{level}3.model.", depth + 1
    if depth < 5:
        return None
    inner = "model.model.1.model."
    kind, affine = _norm(state, f"{inner}1.bias", f"{inner}2", norm, notes)
    return Architecture(
        kind="unet",
        input_nc=first.shape[1],
        output_nc=last.shape[1],
        ngf=first.shape[0],
        depth=depth,
        norm=kind,
        affine=affine,
    )


def _norm(
    state: Mapping[str, Tensor], bias: str, place: str, wanted: str | None, notes: list[str]
) -> tuple[str, bool]:
    """Return (norm, affine) from the first norm's entries and the bias in front of it."""
    has_bias, has_weight = bias in state, f"{place}.weight" in state
    has_statistics = f"{place}.running_mean" in state
    if has_weight and has_statistics:
        if not has_bias:
            return "batch", False
        # Before July 2017 both norms were saved with weight, bias and statistics.
        if wanted is None:
            notes.append(
                "its norms may be instance or batch norms (a file of before July 2017): read as "
                "instance norm, the default of that time; --norm batch reads the other"
            )
        return wanted or "instance", wanted != "batch"
    if has_weight:
        return "instance", True
    if has_statistics or has_bias:
        return "instance", False
    return "none", False


def _modernise(
    state: dict[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    architecture: Architecture,
    notes: list[str],
) -> None:
    """Drop, add and fold what older eras wrote otherwise, where that changes no output."""
    if architecture.norm == "instance":
        dropped = [k for k in state if k.rpartition(".")[2] in _STATISTICS and k not in expected]
        for key in dropped:
            del state[key]
        if dropped:
            notes.append(f"{len(dropped)} running statistics of instance norms dropped (unused)")
        # A bias in front of an instance norm is taken out again by the mean, so an era left all of
        # them out. The one or two convolutions without a norm behind them always have theirs.
        biases = [key for key in expected if key.endswith(".bias")]
        added = [key for key in biases if key not in state]
        if len(biases) - len(added) > 2:
            added = []
        for key in added:
            state[key] = torch.zeros(expected[key])
        if added:
            notes.append(f"{len(added)} missing biases in front of instance norms set to zero")
    elif architecture.norm == "batch":
        for key in [k for k in expected if k.endswith(".num_batches_tracked") and k not in state]:
            state[key] = torch.zeros((), dtype=torch.long)
        folded = 0
        for key in [k for k in state if k.endswith(".bias") and k not in expected]:
            place, _, index = key.removesuffix(".bias").rpartition(".")
            mean = f"{place}.{int(index) + 1}.running_mean" if index.isdigit() else ""
            if mean in state and state[mean].shape == state[key].shape:
                # batch_norm(conv + bias) has the mean moved by the bias.
                state[mean] = state[mean] - state.pop(key)
                folded += 1
        if folded:
            notes.append(f"{folded} biases in front of batch norms folded into their means")


def _what_it_is(state: Mapping[str, Tensor]) -> str:
    """Say what a file without a generator holds."""
    expected = "expected was a generator: resnet_Nblocks or unet_N with upstream's tensor names"
    first, pixel = state.get("model.0.weight"), state.get("net.0.weight")
    if any(key.endswith(".filt") for key in state):
        kind = "a generator of CUT with blur filters, which has other layers"
    elif first is not None and first.ndim == 4 and first.shape[2:] == (4, 4):
        kind = "a PatchGAN discriminator; its generator is the file with net_G in its name"
    elif pixel is not None and pixel.ndim == 4:
        kind = "a pixel discriminator; its generator is the file with net_G in its name"
    elif not state:
        return f"it holds no tensors; {expected}"
    else:
        shown = ", ".join(f"{k} {tuple(v.shape)}" for k, v in list(state.items())[:3])
        kind = f"{len(state)} tensors such as {shown}"
    return f"it holds {kind}; {expected}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
