# SPDX-License-Identifier: MIT
"""What the ranks of test_ranks.py do, each in a process of its own, and how they are started."""

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from typing import NamedTuple

import fork_server
import numpy as np
import torch
import torch.distributed as dist
import toy
from torch import nn

import cyclegan_fast
from cyclegan_fast import models
from cyclegan_fast.data import parts
from cyclegan_fast.data.parts import part_of
from cyclegan_fast.data.unpaired import UnpairedDataset
from cyclegan_fast.training import (
    Reporter,
    StepDraws,
    Trainer,
    buckets,
    build,
    joining,
    rank_state,
    ranks,
    train,
)
from cyclegan_fast.training import trainer as trainer_module
from cyclegan_fast.training.engine import Engine
from cyclegan_fast.training.pool import PoolDraws

STEPS = 12
# Some hundred bytes: the small networks have several buckets, and gradients larger than one.
buckets.LIMIT = 600


class Raised(NamedTuple):
    """An error of a rank."""

    kind: str
    text: str


def together(work, *arguments, count=2):
    """Let `count` ranks do the work; return what each returned or raised."""
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(count):
            here, there = multiprocessing.Pipe(duplex=False)
            rendezvous = f"file://{folder}/rendezvous"
            process = fork_server.started(_enter, there, rendezvous, rank, count, work, arguments)
            there.close()
            started.append((process, here))
        results = []
        for process, here in started:
            results.append(here.recv() if here.poll(120) else None)
            process.join(30)
            process.kill()
    return results


def _enter(pipe, rendezvous, rank, count, work, arguments):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=count)
    try:
        pipe.send(work(*arguments))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        pipe.send(Raised(type(error).__name__, str(error)))
    dist.destroy_process_group()


class Data(toy.Data):
    """Pictures in float64; with `odd`, some batches are smaller, down to one picture."""

    def __init__(self, odd=False, per_epoch=4):
        super().__init__(per_epoch, dtype=torch.float64)
        self.odd = odd

    def batch(self, step, batch_size):
        whole = super().batch(step, batch_size)
        kept = {1: batch_size - 1, 3: 1}.get(step % 4, batch_size) if self.odd else batch_size
        return {name: pictures[:kept] for name, pictures in whole.items()}


def doubled(config):
    """The run's networks in float64, with weights that count from the first step on."""
    nets = build(config)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for _, net in nets.items():
            models.init_weights(net.double(), "normal", 0.2)
    return nets


def draws_of_rank(step, rank, batch, size):
    """Draws of one rank's pools, a function of step and rank."""
    random = np.random.default_rng([step, rank])
    return [PoolDraws(random.random(batch), random.integers(0, size, batch)) for _ in range(2)]


def joined_draws(step, count, batch, size):
    """What one process draws for its pool to do what the pools of all ranks do.

    While pools fill, rank r's picture k goes to the row of the joined pool that this says.
    """
    each = [draws_of_rank(step, rank, batch, size) for rank in range(count)]
    pools = []
    for pool in range(2):
        coins = [each[rank][pool].coin for rank in range(count)]
        rows = []
        for rank in range(count):
            k = each[rank][pool].slot
            rows.append(k // batch * count * batch + rank * batch + k % batch)
        pools.append(PoolDraws(np.concatenate(coins), np.concatenate(rows)))
    return StepDraws(*pools)


def steps(options, wrong=None, odd=False, draws=None, other_weights=False, of=2):
    """Train some steps; returns the losses of each, and the weights at the end.

    Args:
        options: of toy.config, batch_size for a rank.
        wrong: name of a function here that breaks something.
        odd: see `Data`.
        draws: (batch, size) of a pool with draws of our own.
        other_weights: rank 1 begins with others.
        of: ranks that one process alone stands for.
    """
    if wrong is not None:
        globals()[wrong]()
    with joining.join("cpu") as team:
        count, rank = (team.count, team.rank) if team else (1, 0)
        if team is None:
            options = {**options, "batch_size": options["batch_size"] * of}
        config = toy.config(precision="fp32", **options)
        nets = doubled(config)
        if other_weights and rank:
            nets = doubled(toy.config(precision="fp32", **options, seed=5))
        trainer = Trainer(config, nets, steps_per_epoch=4, ranks=team)
        data = part_of(Data(odd), rank, count)
        losses = []
        for step in range(STEPS):
            chance = None
            if draws is not None:
                own = StepDraws(*draws_of_rank(step, rank, *draws))
                chance = own if team else joined_draws(step, of, *draws)
            made = trainer.step(data.batch(step, config.batch_size), chance)
            losses.append({name: float(value) for name, value in made.items()})
        return losses, weights(trainer), trainer.images


def named_steps(case):
    """`steps`, its arguments by name."""
    return steps(**case)


def weights(trainer):
    """All weights by name."""
    return {
        f"{name}.{key}": value
        for name, net in trainer.networks.items()
        for key, value in weights_of(net).items()
    }


def weights_of(net):
    """A network's weights by name, as they are now."""
    return {name: value.detach().numpy().copy() for name, value in net.state_dict().items()}


def sum_of_gradients():
    right = buckets.Buckets.average

    def average(self):
        right(self)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(self._ranks.count)

    buckets.Buckets.average = average


def sum_of_losses():
    right = Engine.joined

    def joined(self, losses):
        return {name: 2 * loss for name, loss in right(self, losses).items()}

    Engine.joined = joined


def a_bucket_left_out():
    right = buckets.Buckets._make
    buckets.Buckets._make = lambda self, parameters: right(self, parameters)[:-1]


def same_pictures_on_every_rank():
    right = parts.rows
    parts.rows = lambda total, rank, count: (
        right(total, 0, count)[0],
        right(total, rank, count)[1],
    )


def equal_shares():
    right = ranks.Ranks.weigh
    ranks.Ranks.weigh = lambda self, share: right(self, 1 / self.count)


def weights_of_its_own():
    ranks.Ranks.copy_from_first = lambda self, tensors: None


def overflow_on_one_rank():
    """Let fp16 overflow on rank 1 in some steps; returns its scale, skipped steps and weights."""
    with joining.join("cpu") as team:
        config = toy.config(precision="fp16")
        trainer = Trainer(config, steps_per_epoch=4, ranks=team)
        data = part_of(toy.Data(), team.rank, team.count)
        for step in range(5):
            batch = dict(data.batch(step, 1))
            if team.rank == 1 and step in (1, 3):
                batch["A"] = batch["A"] * 1e30
            trainer.step(batch)
        scaler = trainer.engine.scaler
        return float(scaler.factor), scaler.skipped, weights(trainer)


class AllAt(toy.Data):
    """Data in float64 that does something to rank 1 when it is asked for a step."""

    def __init__(self, step=None, what=None):
        super().__init__(6, dtype=torch.float64)
        self.step, self.what = step, what

    def batch(self, step, batch_size):
        if step == self.step and os.environ.get("RANK") == "1":
            if self.what == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                raise OSError("the disk of rank 1 is gone")
        return super().batch(step, batch_size)


class Told(Reporter):
    """Remembers what it is told."""

    def __init__(self):
        self.notes, self.reports = [], []

    def on_start(self, info):
        self.notes = info.notes

    def on_step(self, stats):
        self.reports.append((stats.step, stats.images, stats.losses))


def whole_run(options, step=None, what=None):
    """A run from its start, or its last save, to its end; returns what came of it."""
    trainer_module.build = doubled
    told = Told()
    config = toy.config(precision="fp32", **options)
    result = train(config, AllAt(step, what), told)
    pools = rank_state.pooled(result.trainer.state_dict()["tensors"]["pools"])
    return {
        "step": result.step,
        "exit_code": result.exit_code,
        "saved": result.saved.name,
        "weights": weights(result.trainer),
        "pooled": pools,
        "notes": told.notes,
        "reports": told.reports,
    }


def dropout_after(folder, steps_before):
    """Train with dropout in two starts or in one; returns the weights."""
    options = dict(dropout=True, save_latest_freq=1000, print_freq=1)
    for max_steps in [*steps_before, 6]:
        going_on = max_steps != [*steps_before, 6][0]
        config = toy.config(folder, max_steps=max_steps, continue_train=going_on, **options)
        result = train(config, toy.Data())
    return weights(result.trainer)


def on_pictures(folders, options):
    """Train on pictures in a folder of each rank's own."""
    folder = folders[int(os.environ["RANK"])]
    config = toy.config(**{**options, "dataroot": str(folder)})
    data = UnpairedDataset(folder, load_size=toy.SIDE, crop_size=toy.SIDE)
    return train(config, data).step


def other_options(folder):
    """Train with another learning rate on rank 1."""
    lr = 1e-4 if os.environ["RANK"] == "1" else 2e-4
    return train(toy.config(folder, lr=lr), toy.Data()).step


def user_loop(accelerated, batch_size, of=1):
    """A user's own loop with PyTorch's DistributedDataParallel; returns the weights."""
    count, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    net = doubled(toy.config()).G_A
    if accelerated:
        cyclegan_fast.accelerate(net)
    model = net
    if count > 1:
        # Of biases in front of a norm a fused op takes no gradient, and DDP must be told.
        model = nn.parallel.DistributedDataParallel(net, find_unused_parameters=accelerated)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    data = part_of(Data(), rank, count)
    for step in range(4):
        batch = data.batch(step, batch_size * of)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(batch["A"]), batch["B"]).backward()
        optimizer.step()
    return weights_of(net)
