# SPDX-License-Identifier: MIT
"""The history of generated pictures from which the discriminators learn.

Upstream's rule, picture by picture: while the pool is not full, store the picture and return it;
then, with probability one half, swap it for a random stored one and return that, else return it.
What the rule decides depends on draws alone, never on a picture. So the decisions are made on the
host ahead of the step and reach the device as two lists of row numbers: the step itself has no
branch and can be captured in a CUDA graph.

Reference: Shrivastava et al. 2017, arXiv:1612.07828, section 2.3; Zhu et al. 2017, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cyclegan_fast import draws
from cyclegan_fast.ops import pool_exchange
from cyclegan_fast.ops.pool_exchange.reference import finite


class PoolDraws(NamedTuple):
    """The randomness of one pool in one step."""

    coin: np.ndarray  # float64 [N] in [0, 1); above one half: swap
    slot: np.ndarray  # int64 [N] in [0, size); the stored picture to swap for


class Decision(NamedTuple):
    """What one pool does with one batch of N pictures."""

    take: Tensor  # int64 [N]; below `size` a stored row, else size + index in the batch
    put: Tensor  # int64 [N]; the row that keeps the picture, `size` for none


def draw(seed: int, pool: str, step: int, n: int, size: int) -> PoolDraws:
    """Return the draws of a pool in a step, a pure function of its arguments."""
    return PoolDraws(
        draws.uniforms(seed, f"{pool}/coin", step, n),
        draws.integers(seed, f"{pool}/slot", step, n, max(size, 1)),
    )


def decide(chance: PoolDraws, stored: int, size: int) -> tuple[Decision, int]:
    """Apply upstream's rule to a batch.

    Args:
        chance: draws for N pictures; those of pictures that fill the pool go unused.
        stored: pictures in the pool before.
        size: pictures the pool may hold, at least 1.

    Returns:
        The decision, on the CPU, and the number of pictures in the pool after.
    """
    n = len(chance.coin)
    take, put = np.arange(size, size + n), np.full(n, size)
    holder: dict[int, int] = {}  # row -> picture of this batch that it holds by now
    for i in range(n):
        if stored < size:
            row, stored = stored, stored + 1
        elif chance.coin[i] > 0.5:
            row = int(chance.slot[i])
            take[i] = size + holder[row] if row in holder else row
        else:
            continue
        holder[row] = i
    for row, i in holder.items():
        put[i] = row  # of two pictures put into one row, the later one stays
    return Decision(torch.from_numpy(take), torch.from_numpy(put)), stored


class ImagePool:
    """Generated pictures of one domain, in one tensor on the device.

    Args:
        size: pictures it may hold; 0 makes it hand every picture through.
        memory_format: layout in which it keeps pictures and hands them out.
    """

    def __init__(
        self, size: int, memory_format: torch.memory_format = torch.contiguous_format
    ) -> None:
        self.size = size
        self.stored = 0
        self._memory_format = memory_format
        # One row more than pictures: where a picture goes that is not kept.
        self._rows: Tensor | None = None

    def decide(self, chance: PoolDraws, device: torch.device) -> Decision | None:
        """Decide for a batch about to come, and count it; None for a pool of size 0."""
        if self.size == 0:
            return None
        decision, self.stored = decide(chance, self.stored, self.size)
        if device.type == "cuda":
            # One copy from pinned memory: the host does not wait for it.
            both = torch.stack(decision).pin_memory().to(device, non_blocking=True)
            return Decision(*both.unbind())
        return Decision(*(rows.to(device) for rows in decision))

    def query(self, pictures: Tensor, decision: Decision | None) -> Tensor:
        """Hand a batch to the pool and return what the discriminator sees.

        Args:
            pictures: [N, C, H, W], the same C, H, W, dtype and device in every call.
            decision: of `decide`, on pictures' device.

        Returns:
            [N, C, H, W], no gradient.

        Raises:
            ValueError: pictures of another shape or dtype than before.
        """
        pictures = pictures.detach()
        if decision is None:
            return pictures
        if self._rows is None:
            self._rows = self._blank(pictures)
        if self._rows.shape[1:] != pictures.shape[1:] or self._rows.dtype != pictures.dtype:
            raise ValueError(
                f"pool: pictures must be {list(self._rows.shape[1:])} {self._rows.dtype} as before,"
                f" got {list(pictures.shape[1:])} {pictures.dtype}. Give all pictures one size "
                "(--preprocess resize_and_crop), or use --pool_size 0."
            )
        return pool_exchange(self._rows, pictures, decision.take, decision.put)

    def state_dict(self) -> dict[str, Tensor]:
        """Return {"pictures": [stored, C, H, W]}, or nothing while it is empty."""
        return {} if self._rows is None else {"pictures": self._rows[: self.stored]}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Hold exactly the pictures given.

        Raises:
            ValueError: there are more than the pool may hold.
        """
        pictures = state.get("pictures")
        if pictures is None:
            self._rows, self.stored = None, 0
            return
        _check_fits(len(pictures), self.size)
        self.stored = len(pictures)
        self._rows = self._blank(pictures.to(device))
        self._rows[: self.stored] = pictures.to(device)

    def _blank(self, like: Tensor) -> Tensor:
        rows = like.new_zeros((self.size + 1, *like.shape[1:]))
        return rows.contiguous(memory_format=self._memory_format)


class RaggedPool:
    """The same pool for pictures of changing size (--preprocess none or scale_width).

    It keeps a list, so it works on the host and cannot be captured in a CUDA graph.

    Args:
        size: pictures it may hold; 0 makes it hand every picture through.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pictures: list[Tensor] = []

    def decide(self, chance: PoolDraws, device: torch.device) -> Decision | None:
        """Decide for a batch about to come; None for a pool of size 0."""
        del device  # the decision is read here, not there
        return decide(chance, len(self._pictures), self.size)[0] if self.size else None

    def query(self, pictures: Tensor, decision: Decision | None) -> Tensor:
        """Hand a batch to the pool and return what the discriminator sees; as `ImagePool`'s.

        Raises:
            ValueError: the pictures to return differ in size, so that no batch can hold them.
        """
        pictures = pictures.detach()
        if decision is None:
            return pictures
        batch = pictures.split(1)
        shown = [
            self._pictures[row] if row < self.size else batch[row - self.size]
            for row in decision.take.tolist()
        ]
        kept = dict(zip(decision.put.tolist(), batch, strict=True))
        for row in sorted(kept):
            if row < self.size:
                self._pictures[row : row + 1] = [finite(kept[row])]  # replaces, or appends
        if len({picture.shape for picture in shown}) > 1:
            raise ValueError(
                "pool: pictures of one batch must have one size, got "
                f"{sorted({tuple(picture.shape[2:]) for picture in shown})}. "
                "Use --batch_size 1, or a --preprocess that crops."
            )
        return torch.cat(shown)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pictures by row number."""
        return {f"{row:05d}": picture for row, picture in enumerate(self._pictures)}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Hold exactly the pictures given.

        Raises:
            ValueError: there are more than the pool may hold.
        """
        _check_fits(len(state), self.size)
        self._pictures = [state[row].to(device) for row in sorted(state)]


def _check_fits(pictures: int, size: int) -> None:
    if pictures > size:
        raise ValueError(
            f"pool: pool_size must be {pictures} or more, as many pictures are in the checkpoint, "
            f"got {size}"
        )
