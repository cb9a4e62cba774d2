# SPDX-License-Identifier: MIT
"""The processes of one run on several GPUs: what they tell each other, and who has gone.

Gradients and losses go through NCCL on GPUs and may be captured in a graph. Everything else is said
on the host, through gloo, which notices at once when a process ends.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cyclegan_fast.errors import CycleganFastError, RankLostError, RanksDifferError
from cyclegan_fast.training.peers import Beside, Peer

T = TypeVar("T")

# The longest that one rank may keep the others waiting: a save on a slow disk, a stalled read.
TIMEOUT = timedelta(minutes=5)


class Verdict(NamedTuple):
    """What the ranks agree on before a step."""

    signal: int | None  # that one of them received
    failed: int | None  # a rank that has no pictures for the step


class Ranks:
    """All processes of a run, seen from one of them; every method but `weigh` is called by all.

    Args:
        device: of this rank.

    Attributes:
        rank: number of this process.
        count: number of processes.
        device: of this rank.
        peers: all processes, by rank.
        beside: those on this machine.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._host_group: Any = dist.new_group(backend="gloo", timeout=TIMEOUT)
        self._weight = 1 / self.count
        self._share = torch.full((), self._weight, dtype=torch.float64, device=device)
        # Before all have told who they are, nobody can be named.
        self.peers: list[Peer] = []
        self.beside = Beside(self.rank, [])
        self.peers = self.everyone(Peer.of_this_process(self.rank))
        self.beside = Beside(self.rank, self.peers)

    @property
    def backend(self) -> str:
        """Name of what gradients go through: "nccl" or "gloo"."""
        return dist.get_backend()

    def weigh(self, share: float) -> None:
        """Set this rank's share in the means of the next step: pictures here / pictures in all."""
        if share != self._weight:
            self._weight = share
            self._share.fill_(share)  # in place: a captured step sees it

    def begin_mean(self, values: Tensor) -> Callable[[], None]:
        """Begin to replace values by their mean over the ranks, each with its share, in place.

        Returns:
            What waits for it: on a GPU the stream does, not the host.
        """
        values.mul_(self._share)  # gloo can only sum; of fp16's scaled gradients no sum overflows
        with self._talking():
            work = dist.all_reduce(values, async_op=True)

        def wait() -> None:
            with self._talking():
                work.wait()

        return wait

    @torch.no_grad()
    def copy_from_first(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors by rank 0's."""
        with self._talking():
            for tensor in tensors:
                dense = tensor.contiguous()
                dist.broadcast(dense, 0)
                tensor.copy_(dense)

    def agree(self, signal: int | None, failed: bool) -> Verdict:
        """Tell the others what happened here, and hear what happened there.

        Args:
            signal: received by this rank, or None.
            failed: this rank cannot take the next step.
        """
        said = torch.tensor([signal or 0, self.rank + 1 if failed else 0])
        with self._talking():
            dist.all_reduce(said, dist.ReduceOp.MAX, self._host_group)
        received, number = said.tolist()
        return Verdict(received or None, number - 1 if number else None)

    def everyone(self, said: T) -> list[T]:
        """Return what each rank says, by rank; any value that can be pickled."""
        heard: list[Any] = [None] * self.count
        with self._talking():
            dist.all_gather_object(heard, said, self._host_group)
        return heard

    def at_first(self, said: T) -> list[T] | None:
        """Return what each rank says, by rank, on rank 0; None on the others."""
        heard: list[Any] | None = [None] * self.count if self.rank == 0 else None
        with self._talking():
            dist.gather_object(said, heard, 0, self._host_group)
        return heard

    def first_does(self, work: Callable[[], T]) -> T:
        """Let rank 0 do something, and return on every rank what it returned there.

        Raises:
            Exception: what `work` raised, on every rank.
        """
        result, error = None, None
        if self.rank == 0:
            try:
                result = work()
            except Exception as caught:
                error = caught
        told = [(result, _sendable(error))]
        with self._talking():
            dist.broadcast_object_list(told, 0, self._host_group)
        if error is not None:
            raise error
        if told[0][1] is not None:
            raise told[0][1]
        return told[0][0]  # type: ignore[return-value]

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Refuse to go on unless every rank has the same.

        Raises:
            RanksDifferError: on every rank, naming those that differ from rank 0, and in what.
        """
        everyone = self.everyone(dict(facts))
        first = everyone[0]
        lines = []
        for peer, theirs in zip(self.peers, everyone, strict=True):
            other = [
                f"{name} {theirs.get(name)} (rank 0: {first.get(name)})"
                for name in {**first, **theirs}
                if theirs.get(name) != first.get(name)
            ]
            if other:
                lines.append(f"{peer} differs from rank 0 in {', '.join(other)}")
        if lines:
            raise RanksDifferError(
                f"{'; '.join(lines)}. All ranks train on the same pictures with the same options: "
                "give --dataroot on a disk that all see, or copy it whole."
            )

    def wait_for_all(self) -> None:
        """Wait until every rank has come here."""
        with self._talking():
            dist.barrier(self._host_group)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Turn the end of a connection into an error that says whose it was."""
        try:
            yield
        except RuntimeError as error:
            gone = self.beside.missing() or "a rank has ended or does not answer"
            said = str(error).partition(". ")[0]
            raise RankLostError(
                f"{gone}: the run cannot go on without it ({said}). Its own error, or the last "
                "lines of torchrun, say why. Start again with --resume."
            ) from error


def first_does(ranks: Ranks | None, work: Callable[[], T]) -> T:
    """Do something once in a run: here if there is one process, else as `Ranks.first_does`."""
    return work() if ranks is None else ranks.first_does(work)


def refuse_buffers(networks: Iterable[nn.Module], norm: str) -> None:
    """Raise unless networks keep nothing that ranks would each have another one of.

    Raises:
        ValueError: naming the option norm, which is what brings buffers.
    """
    if any(True for net in networks for _ in net.buffers()):
        raise ValueError(
            f"config: norm must be instance or none with several ranks, got {norm}: batch norm, "
            "and whatever else keeps a buffer, would see the pictures of one rank alone, and each "
            "rank would keep another one. Use --norm instance, or one process."
        )


def agreed(
    ranks: Ranks | None, signal: int | None, failure: Exception | None, save: Callable[[], None]
) -> int | None:
    """Return the signal that ends the run before the next step, the same on every rank.

    Args:
        ranks: of the run, or None.
        signal: received here.
        failure: why this rank cannot take the step.
        save: called on every rank before an error is raised, so that nothing trained is lost.

    Raises:
        Exception: `failure`.
        RankLostError: another rank cannot take the step.
    """
    if ranks is None:
        if failure is not None:
            save()
            raise failure
        return signal
    verdict = ranks.agree(signal, failure is not None)
    if verdict.failed is None:
        return verdict.signal
    save()
    reasons = ranks.everyone(f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    raise RankLostError(
        f"{ranks.peers[verdict.failed]} ends the run, which is saved: {reasons[verdict.failed]}"
    )


def _sendable(error: Exception | None) -> Exception | None:
    if error is None:
        return None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return CycleganFastError(f"rank 0: {type(error).__name__}: {error}")
    return error
