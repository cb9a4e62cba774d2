# SPDX-License-Identifier: MIT
import hashlib

import numpy as np
import pytest

from cyclegan_fast import draws

WORD = 2**64 - 1


def philox4x64(counter, key):
    """Philox4x64-10 as the paper's figure 2 draws it, in Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left = 0xD2E7470EE14C6C93 * c[0]
        right = 0xCA5A826395121157 * c[2]
        c = [(right >> 64) ^ c[1] ^ k[0], right & WORD, (left >> 64) ^ c[3] ^ k[1], left & WORD]
        k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
    return c


def expected_words(seed, stream, step, n):
    digest = hashlib.sha256(seed.to_bytes(8, "little") + stream.encode()).digest()
    key = [int.from_bytes(digest[i : i + 8], "little") for i in (0, 8)]
    blocks = [philox4x64([1 + i, step, 0, 0], key) for i in range((n + 3) // 4)]
    return [word for block in blocks for word in block][:n]


ADDRESSES = [(0, "golden", 0), (0, "order", 1), (1, "order", 0), (WORD, "gölden 雪", WORD)]


@pytest.mark.parametrize("address", ADDRESSES)
def test_words_are_those_of_an_independent_philox(address):
    assert draws.words(*address, 11).tolist() == expected_words(*address, 11)


def test_golden_values():
    # Committed once: a change here changes every seeded run there is.
    assert draws.words(0, "golden", 0, 3).tolist() == [
        9392823151859982787,
        15755122150672577132,
        4375611311498346337,
    ]
    assert draws.uniforms(1, "golden", 7, 3).tolist() == [
        0.9317171460389095,
        0.6500044816444178,
        0.9698240834904397,
    ]
    assert draws.integers(1, "golden", 7, 8, 10).tolist() == [9, 6, 9, 1, 3, 3, 5, 6]
    assert draws.permutation(1, "golden", 7, 8).tolist() == [3, 4, 5, 6, 7, 1, 0, 2]


def test_types_and_emptiness():
    assert draws.words(0, "a", 0, 5).dtype == np.uint64
    assert draws.uniforms(0, "a", 0, 5).dtype == np.float64
    assert draws.integers(0, "a", 0, 5, 3).dtype == np.int64
    assert draws.permutation(0, "a", 0, 5).dtype == np.int64
    for make in (draws.words, draws.uniforms, draws.permutation):
        assert make(0, "a", 0, 0).shape == (0,)


def test_a_draw_depends_on_each_of_its_coordinates_and_on_nothing_else():
    state = np.random.get_state()[1].copy()
    first = draws.words(3, "a", 5, 64)
    others = [
        draws.words(4, "a", 5, 64),
        draws.words(3, "b", 5, 64),
        draws.words(3, "a", 6, 64),
        draws.words(3, "", 5, 64),
    ]
    assert all(not np.intersect1d(first, other).size for other in others)
    assert np.array_equal(first, draws.words(3, "a", 5, 64))
    assert np.array_equal(first[:10], draws.words(3, "a", 5, 10))
    assert np.array_equal(state, np.random.get_state()[1])


def test_numpy_integers_address_the_same_words_as_python_integers():
    got = draws.words(np.int64(3), "a", np.uint64(5), np.int32(4))
    assert np.array_equal(got, draws.words(3, "a", 5, 4))


def test_integers_are_the_exact_upper_half_of_the_product():
    word = draws.words(2, "exact", 9, 64).tolist()
    for high in (1, 2, 3, 255, 2**31 - 1, 2**32 - 1, 2**32):
        expected = [w * high >> 64 for w in word]
        assert draws.integers(2, "exact", 9, 64, high).tolist() == expected
    bounds = np.arange(1, 65)
    expected = [w * h >> 64 for w, h in zip(word, bounds.tolist(), strict=True)]
    assert draws.integers(2, "exact", 9, 64, bounds).tolist() == expected


def test_uniforms_fill_the_half_open_interval_evenly():
    u = draws.uniforms(11, "even", 0, 200_000)
    assert u.min() >= 0 and u.max() < 1
    counts, _ = np.histogram(u, bins=64, range=(0, 1))
    expected = len(u) / 64
    # Chi-squared with 63 degrees of freedom: mean 63, deviation 11.2; fixed draws, so no flake.
    assert 63 - 45 < ((counts - expected) ** 2 / expected).sum() < 63 + 45


def test_permutation_is_one_and_every_place_is_equally_likely():
    orders = np.stack([draws.permutation(5, "order", step, 7) for step in range(4200)])
    assert (np.sort(orders, axis=1) == np.arange(7)).all()
    counts = np.stack([(orders == value).sum(axis=0) for value in range(7)])
    # Binomial(4200, 1/7): mean 600, deviation 22.7.
    assert abs(counts - 600).max() < 5 * 22.7


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: draws.words(-1, "a", 0, 1), ValueError, r"seed must be in \[0, 2\*\*64\), got -1"),
        (lambda: draws.words(2**64, "a", 0, 1), ValueError, "seed must be"),
        (lambda: draws.words(0, "a", -1, 1), ValueError, "step must be"),
        (lambda: draws.words(0, "a", 0, -1), ValueError, "n must be 0 or more, got -1"),
        (lambda: draws.words(0.5, "a", 0, 1), TypeError, "float"),
        (lambda: draws.words(0, 7, 0, 1), TypeError, "stream must be a string, got int"),
        (lambda: draws.integers(0, "a", 0, 1, 0), ValueError, "high must be"),
        (lambda: draws.integers(0, "a", 0, 1, 2**32 + 1), ValueError, "high must be"),
        (lambda: draws.integers(0, "a", 0, 1, 2.5), TypeError, "high must be integer"),
    ],
)
def test_wrong_arguments_are_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
