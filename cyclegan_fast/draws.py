# SPDX-License-Identifier: MIT
"""Counter-based randomness: every draw is a pure function of (seed, stream, step).

    words(seed, stream, step) = Philox4x64-10(key, counter)
    key = SHA-256(seed, stream)[:16],  counter = (1, 2, ...; step; 0; 0)

No state is kept, so a run that is resumed, or read by any number of threads, sees the draws it
would have seen, and two streams ("order", "crop/A", ...) never share a word. Only raw 64-bit words
are taken from numpy: its bit generators promise the same stream for ever, its distribution methods
do not (NEP 19). What is built on the words here is integer arithmetic and one exact multiplication
by a power of two, hence equal on every platform.

Reference: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
import operator

import numpy as np

__all__ = ["integers", "permutation", "uniforms", "words"]

_LOW_HALF = np.uint64(0xFFFFFFFF)
_HALF_BITS = np.uint64(32)


def words(seed: int, stream: str, step: int, n: int) -> np.ndarray:
    """Returns the first n raw 64-bit words of (seed, stream, step).

    Args:
        seed: integer in [0, 2**64).
        stream: name of what is drawn; different names give independent words.
        step: integer in [0, 2**64).
        n: number of words; a longer draw begins with the shorter one.

    Returns:
        uint64 [n].

    Raises:
        TypeError: seed, step or n is not an integer, or stream is not a string.
        ValueError: seed, step or n is out of range.
    """
    seed, step = _word("seed", seed), _word("step", step)
    n = operator.index(n)
    if n < 0:
        raise ValueError(f"draws: n must be 0 or more, got {n}")
    if not isinstance(stream, str):
        raise TypeError(f"draws: stream must be a string, got {type(stream).__name__}")
    # The stream's bytes come last and the seed is of fixed width, so no two pairs give one text.
    digest = hashlib.sha256(seed.to_bytes(8, "little") + stream.encode("utf-8")).digest()
    key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    counter = np.array([0, step, 0, 0], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(n)


def uniforms(seed: int, stream: str, step: int, n: int) -> np.ndarray:
    """Draws n numbers uniformly from [0, 1): u = floor(word / 2**11) / 2**53.

    Args and Raises: as `words`.

    Returns:
        float64 [n], each a multiple of 2**-53.
    """
    return (words(seed, stream, step, n) >> np.uint64(11)) * 2.0**-53


def integers(seed: int, stream: str, step: int, n: int, high: int | np.ndarray) -> np.ndarray:
    """Draws n integers uniformly from [0, high): floor(word * high / 2**64).

    The excess of any value's probability is below high / 2**64. There is no rejection, so every
    draw takes exactly one word.

    Args:
        seed: as `words`.
        stream: as `words`.
        step: as `words`.
        n: number of integers.
        high: the bound, in [1, 2**32]; one for all, or integer [n], one for each.

    Returns:
        int64 [n].

    Raises:
        ValueError: high is out of range; and as `words`.
        TypeError: as `words`.
    """
    bound = np.asarray(high)
    if not np.issubdtype(bound.dtype, np.integer):
        raise TypeError(f"draws: high must be integer, got {bound.dtype}")
    if bound.size and (bound.min() < 1 or bound.max() > 2**32):
        raise ValueError(f"draws: high must be in [1, 2**32], got {high}")
    bound = bound.astype(np.uint64)
    word = words(seed, stream, step, n)
    # The upper 64 bits of the 96-bit product, in two halves that cannot overflow.
    carry = ((word & _LOW_HALF) * bound) >> _HALF_BITS
    return (((word >> _HALF_BITS) * bound + carry) >> _HALF_BITS).astype(np.int64)


def permutation(seed: int, stream: str, step: int, n: int) -> np.ndarray:
    """Draws a uniformly random order of 0..n-1: the order that sorts n words.

    Args and Raises: as `words`.

    Returns:
        int64 [n].
    """
    return np.argsort(words(seed, stream, step, n), kind="stable").astype(np.int64)


def _word(name: str, value: int) -> int:
    value = operator.index(value)
    if not 0 <= value < 2**64:
        raise ValueError(f"draws: {name} must be in [0, 2**64), got {value}")
    return value
