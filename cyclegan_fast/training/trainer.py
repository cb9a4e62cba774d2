# SPDX-License-Identifier: MIT
"""The trainer: networks, optimizers, pools and schedule, one step at a time."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast import fusion
from cyclegan_fast.data.picked import PickedPictures
from cyclegan_fast.errors import CaptureError
from cyclegan_fast.fusion.half_weights import HalfWeights
from cyclegan_fast.training import graphs, pool, state, walked
from cyclegan_fast.training.arrangement import (
    Arrangement,
    is_ordered,
    resolve_branches,
    resolve_checkpoint,
    resolve_join,
    resolve_merge,
    resolve_pair,
)
from cyclegan_fast.training.buckets import Buckets
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.engine import Decisions, Engine
from cyclegan_fast.training.networks import Networks, build
from cyclegan_fast.training.optimizer import Adam
from cyclegan_fast.training.passes import Given, Weights
from cyclegan_fast.training.precision import (
    resolve_device,
    resolve_layout,
    resolve_precision,
)
from cyclegan_fast.training.ranks import Ranks, refuse_buffers
from cyclegan_fast.training.sample import sample
from cyclegan_fast.training.scaler import LossScaler
from cyclegan_fast.training.schedule import Schedule, for_ranks
from cyclegan_fast.training.stats import LossRecord
from cyclegan_fast.training.step import run


class StepDraws(NamedTuple):
    """The randomness of one step, but for dropout's."""

    fake_A: pool.PoolDraws
    fake_B: pool.PoolDraws


class Trainer:
    """CycleGAN training, upstream's of 2025 to the letter.

    Args:
        config: the options.
        networks: the four networks, or None to build them from the options. They are moved to the
            device and, unless config.accelerate is off, accelerated, in place.
        steps_per_epoch: steps after which an epoch ends; None for no end: the learning rate stays.
        ranks: the processes that train together, each with a batch of its own; all of them make
            their trainer, and get rank 0's weights. None for one process.
        tell: called with what the user should know while the run goes on; None for a warning.

    Raises:
        ValueError: an option that cannot be trained with.
    """

    def __init__(
        self,
        config: TrainConfig,
        networks: Networks | None = None,
        *,
        steps_per_epoch: int | None = None,
        ranks: Ranks | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config.validate()
        self._tell = tell or functools.partial(warnings.warn, category=RuntimeWarning, stacklevel=4)
        self._capture_failed: str | None = None
        self.ranks = ranks
        self.device = resolve_device(config.device) if ranks is None else ranks.device
        self.precision = resolve_precision(config.precision, self.device)
        self.memory_format = resolve_layout(config.memory_format, self.precision, config.accelerate)
        self.steps_per_epoch = steps_per_epoch
        self.step_count = 0
        self.images = 0  # of each domain, seen in training by all ranks
        rated = for_ranks(config, ranks.count if ranks else 1)
        self.schedule = Schedule(rated)
        self._lr = rated.lr
        self.engine = self._engine(networks if networks is not None else build(config))
        walked.check_checkpoint(self.engine)
        self._run = self._runner()

    def _engine(self, networks: Networks) -> Engine:
        config = self.config
        for _, net in networks.items():
            self._prepare(net)
        self._share(networks)
        averages = None
        if config.ema:
            averages = (self._copy(networks.G_A), self._copy(networks.G_B))
            for mean in averages:
                mean.requires_grad_(False)
        halves = self._halves(networks)
        optimizer_G, optimizer_D = (
            Adam(networks.parameters(*names), self._lr, config.beta1, halves)
            for names in (("G_A", "G_B"), ("D_A", "D_B"))
        )
        return Engine(
            networks=networks,
            averages=averages,
            ema=config.ema,
            optimizer_G=optimizer_G,
            optimizer_D=optimizer_D,
            pool_A=self._pool(),
            pool_B=self._pool(),
            weights=Weights.of(config, networks.dtype, self.device),
            gan_mode=config.gan_mode,
            precision=self.precision,
            halves=HalfWeights(halves) if halves else None,
            arrangement=self._arrangement(networks),
            scaler=LossScaler(self.device) if self.precision.scaled else None,
            record=LossRecord(self.device),
            ranks=self.ranks,
            buckets={
                optimizer: Buckets(self.ranks, optimizer.parameters)
                for optimizer in (optimizer_G, optimizer_D)
                if self.ranks is not None
            },
        )

    def _share(self, networks: Networks) -> None:
        if self.ranks is None:
            return
        nets = [net for _, net in networks.items()]
        if self.ranks.count > 1:
            refuse_buffers(nets, self.config.norm)
        self.ranks.copy_from_first([p.detach() for net in nets for p in net.parameters()])

    def _halves(self, networks: Networks) -> dict[nn.Parameter, Tensor]:
        """Return 16-bit copies of what convolutions in plans read; none in full precision."""
        half = self.precision.half
        if half is None:
            return {}
        nets = [net for _, net in networks.items()]
        parameters = [p for net in nets for p in fusion.convolution_parameters(net)]
        return {p: p.detach().to(half) for p in parameters}

    def _arrangement(self, networks: Networks) -> Arrangement:
        ordered = is_ordered(net for _, net in networks.items())
        activations = self.precision.half or networks.dtype
        merge = resolve_merge(self.config, self.device, activations.itemsize, ordered=ordered)
        join = resolve_join(self.config, merge=merge, ordered=ordered)
        return Arrangement(
            self.device,
            ordered=ordered,
            merge=merge,
            by_hand=join,
            pair=resolve_pair(self.config, self.device, join=join),
            branches=resolve_branches(self.config, self.device, ordered=ordered),
            checkpoint=resolve_checkpoint(self.config, ordered=ordered),
        )

    def _runner(self) -> Callable[[Given, Decisions], dict[str, Tensor]]:
        self.not_captured = (
            "cuda_graph is off"
            if self.config.cuda_graph == "off"
            else self._capture_failed or graphs.why_not(self.engine, self.device)
        )
        if self.not_captured is None:
            return graphs.CapturedStep(self.engine)
        if self.config.cuda_graph == "on":
            raise ValueError(
                f"config: cuda_graph is on, but {self.not_captured}. Use --cuda_graph auto."
            )
        return functools.partial(run, self.engine)

    def _trained(self, given: Given, decisions: Decisions) -> dict[str, Tensor]:
        """Train one step, replayed if that is possible."""
        try:
            return self._run(given, decisions)
        except CaptureError as error:
            if error.broken or self.config.cuda_graph == "on":
                raise
            self._capture_failed = error.reason
        self._run = self._runner()  # the plain one, and no graph's memory is held
        self._tell(
            f"the step is not replayed as a CUDA graph and runs plainly: {self._capture_failed}"
        )
        return self._run(given, decisions)

    def _prepare(self, net: nn.Module) -> None:
        net.to(self.device)
        net.to(memory_format=self.memory_format).train()  # type: ignore[call-overload]
        if self.config.accelerate:
            # The pictures come in the run's layout already: nothing is to be converted per call.
            contiguous = self.memory_format == torch.contiguous_format
            layout = "preserve" if contiguous else "channels_last"
            fusion.accelerate(net, memory_format=layout)

    def _copy(self, net: nn.Module) -> nn.Module:
        return copy.deepcopy(net)

    def _pool(self) -> pool.ImagePool | pool.RaggedPool:
        if self.config.preprocess in ("scale_width", "none"):
            return pool.RaggedPool(self.config.pool_size)
        return pool.ImagePool(self.config.pool_size, self.memory_format)

    @property
    def networks(self) -> Networks:
        """The four networks in training."""
        return self.engine.networks

    @property
    def generators(self) -> tuple[nn.Module, nn.Module]:
        """G_A and G_B to translate with: their moving averages where config.ema is on."""
        return self.engine.averages or self.networks.generators

    @property
    def epoch(self) -> int:
        """Number of the epoch of the next step."""
        past = self.step_count // self.steps_per_epoch if self.steps_per_epoch else 0
        return self.config.epoch_count + past

    @property
    def lr(self) -> float:
        """Learning rate of the latest step."""
        return self._lr

    def draws(self, n: int) -> StepDraws:
        """Return the next step's draws for a batch of n, a function of seed and step."""
        size, seed, step = self.config.pool_size, self.config.seed, self.step_count
        # Each rank has a pool, and draws of its own: equal ones would not be independent.
        rank = f"/{self.ranks.rank}" if self.ranks and self.ranks.rank else ""
        return StepDraws(
            pool.draw(seed, f"pool/fake_A{rank}", step, n, size),
            pool.draw(seed, f"pool/fake_B{rank}", step, n, size),
        )

    def step(self, batch: Mapping[str, Any], draws: StepDraws | None = None) -> dict[str, Tensor]:
        """Train one step.

        Args:
            batch: "A" [N, input_nc, H, W] and "B" [N, output_nc, H, W], floating-point in
                [-1, 1], on any device, or `PickedPictures` of them. With direction BtoA, "B" is
                translated from. "joined", of a rank's part: how many of its N count, and the
                pictures of all ranks; without it all ranks have N. Other entries are ignored.
            draws: of this step; None for those of the seed.

        Returns:
            D_A, G_A, cycle_A, idt_A, D_B, G_B, cycle_B, idt_B: 0-d tensors, weighted, of the joined
            batch of all ranks. Nothing has waited for the device; reading one does.

        Raises:
            ValueError: pictures that the networks or pools cannot take.
            CaptureError: config.cuda_graph is on and the step cannot be captured, or CUDA did not
                survive the attempt. Otherwise such a step, and all that follow, run plainly.
        """
        self._begin_step()
        given = self._given(batch)
        chance = draws or self.draws(len(given.real_A))
        decisions = Decisions(
            self.engine.pool_A.decide(chance.fake_A, self.device),
            self.engine.pool_B.decide(chance.fake_B, self.device),
        )
        total = len(given.real_A)
        if self.ranks is not None:
            counted, total = batch.get("joined", (total, total * self.ranks.count))
            self.ranks.weigh(counted / total)
        losses = self._trained(given, decisions)
        self.step_count += 1
        self.images += total
        return losses

    def _begin_step(self) -> None:
        if self.steps_per_epoch and self.step_count and self.step_count % self.steps_per_epoch == 0:
            if self.schedule.needs_metric:
                self.schedule.end_epoch(self.engine.record.mean_cycle_loss())
            self.engine.record.begin_epoch()
        self._set_lr(self.schedule.lr(self.epoch))

    def _set_lr(self, lr: float) -> None:
        if lr != self._lr:
            self._lr = lr
            self.engine.optimizer_G.set_lr(lr)
            self.engine.optimizer_D.set_lr(lr)

    def _given(self, batch: Mapping[str, Any]) -> Given:
        source, target = ("A", "B") if self.config.direction == "AtoB" else ("B", "A")
        return Given(self._pictures(batch[source]), self._pictures(batch[target]))

    def _pictures(self, of: Tensor | PickedPictures) -> Tensor | PickedPictures:
        if isinstance(of, PickedPictures):
            # The device as tensors name it, with its number.
            wanted = self.engine.weights.together.device, self.networks.dtype, self.memory_format
            if (of.device, of.dtype, of.memory_format) == wanted:
                return of
        return of.to(
            device=self.device,
            dtype=self.networks.dtype,
            memory_format=self.memory_format,
            non_blocking=True,
        )

    def sample(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Translate pictures without training; touches neither weights nor generators of chance.

        Args:
            batch: as for `step`.

        Returns:
            real_A, fake_B, rec_A, idt_B, real_B, fake_A, rec_B, idt_A (upstream's names: idt_B is
            G_B's picture of A; left out where the domains differ in channels), float32 on the CPU,
            made in evaluation mode.
        """
        return sample(self.generators, self._given(batch).made(), self.precision)

    def check(self) -> None:
        """Raise if the run has gone wrong so far (one synchronisation).

        Raises:
            NonFiniteError: a loss was not finite.
            LossScaleError: fp16 training stands still.
        """
        self.engine.record.check()
        if self.engine.scaler is not None:
            self.engine.scaler.check()

    def check_finite(self) -> None:
        """Raise unless every weight, moment and pooled picture is finite (one synchronisation).

        Raises:
            NonFiniteError: naming the first tensors that are not.
        """
        state.check_finite(self)

    def release_graph(self) -> None:
        """Let go of a captured step: NCCL cannot end before the graphs that hold its calls."""
        self._run = functools.partial(run, self.engine)

    def state_dict(self) -> dict[str, Any]:
        """Return everything the run's future depends on; see `state.collect`."""
        return state.collect(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; see `state.restore`."""
        state.restore(self, saved)
        # Pools come back in new tensors: a graph captured before would read the old ones.
        self._run = self._runner()
