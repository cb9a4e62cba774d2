# SPDX-License-Identifier: MIT
import itertools

import numpy as np
import pytest
import torch

from cyclegan_fast import draws
from cyclegan_fast.metrics import patch_swd

RNG = np.random.default_rng(5)
QUICK = {"patches": 2048, "projections": 64}


def noise(*shape, scale=0.3, shift=0.0) -> torch.Tensor:
    return torch.from_numpy(np.clip(scale * RNG.standard_normal(shape) + shift, -1, 1))


def by_hand(x: np.ndarray, y: np.ndarray, patch, patches, projections, seed) -> float:
    """The definition, with loops over patches, directions and ranks."""
    size = x.shape[1] * patch * patch
    u, v = draws.uniforms(seed, "patch_swd/directions", 0, 2 * size * projections).reshape(
        2, size, projections
    )
    directions = np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v)
    place = draws.uniforms(seed, "patch_swd/patches", 0, 3 * patches).reshape(3, patches)
    total = 0.0
    for k in range(projections):
        direction = directions[:, k] / np.linalg.norm(directions[:, k])
        shadows = []
        for z in (x, y):
            n, _, h, w = z.shape
            shadow = []
            for i in range(patches):
                number = int(place[0, i] * n)
                top, left = (int(place[1 + d, i] * (s - patch + 1)) for d, s in ((0, h), (1, w)))
                cut = z[number, :, top : top + patch, left : left + patch]
                shadow.append(float(np.dot(cut.transpose(1, 2, 0).ravel(), direction)))
            shadows.append(sorted(shadow))
        total += np.mean([abs(a - b) for a, b in zip(*shadows, strict=True)])
    return total / projections


@pytest.mark.parametrize("patch, channels", [(3, 1), (7, 3), (1, 3)])
def test_it_is_its_definition(patch, channels):
    x, y = noise(3, channels, 9, 11), noise(5, channels, 8, 8, scale=0.5, shift=0.2)
    options = {"patch": patch, "patches": 60, "projections": 5, "seed": 3}
    expected = by_hand(x.numpy(), y.numpy(), **options)
    assert abs(patch_swd(x, y, **options).item() - expected) < 1e-12
    assert expected > 0.01


def test_a_set_has_no_distance_to_itself_and_order_of_arguments_is_nothing():
    x, y = noise(4, 3, 16, 16), noise(4, 3, 16, 16)
    assert patch_swd(x, x).item() == 0
    assert patch_swd(x, y).item() == patch_swd(y, x).item() > 0


def test_a_shift_of_all_values_is_measured_exactly():
    # Every projection moves by shift * sum(direction), so the distance is known.
    x, shift = noise(2, 1, 12, 12), 0.25
    u, v = draws.uniforms(0, "patch_swd/directions", 0, 2 * 9 * 32).reshape(2, 9, 32)
    directions = np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v)
    directions /= np.linalg.norm(directions, axis=0)
    expected = shift * np.abs(directions.sum(axis=0)).mean()
    got = patch_swd(x, x + shift, patch=3, projections=32)
    assert abs(got.item() - expected) < 1e-12


def test_it_sees_texture_where_colours_are_equal():
    x = noise(8, 1, 32, 32)
    order = torch.from_numpy(np.argsort(RNG.random((8, 1, 32, 32)).reshape(8, 1, -1)))
    smooth = x.reshape(8, 1, -1).sort(dim=-1).values.reshape(x.shape)  # the same values, arranged
    mixed = x.reshape(8, 1, -1).gather(-1, order).reshape(x.shape)
    floor = patch_swd(x, noise(8, 1, 32, 32), **QUICK).item()
    assert patch_swd(x, mixed, **QUICK).item() < 1.5 * floor
    assert patch_swd(x, smooth, **QUICK).item() > 8 * floor
    # Single pixels have no texture.
    assert patch_swd(x, smooth, patch=1, **QUICK).item() < 0.05


def test_it_falls_as_sets_come_nearer():
    y = noise(8, 3, 16, 16)
    shifts = (0.4, 0.2, 0.1, 0.05)
    distances = [patch_swd(noise(8, 3, 16, 16, shift=s), y, **QUICK).item() for s in shifts]
    assert all(far > 1.3 * near for far, near in itertools.pairwise(distances))


def test_it_is_deterministic_and_the_seed_matters_little():
    x, y = noise(8, 3, 16, 16), noise(8, 3, 16, 16, shift=0.2)
    state = torch.get_rng_state()
    values = [patch_swd(x, y, seed=seed, **QUICK).item() for seed in (0, 0, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert values[0] == values[1] and len(set(values)) == 3
    assert max(values) < 1.15 * min(values)


def test_dtype_layout_and_gradients():
    x, y = noise(2, 3, 16, 16).float(), noise(2, 3, 16, 16).float()
    expected = patch_swd(x.double(), y.double())
    assert expected.dtype == torch.float64 and expected.dim() == 0
    assert torch.equal(patch_swd(x, y.to(memory_format=torch.channels_last)), expected)
    assert not patch_swd(x.requires_grad_(), y).requires_grad


@pytest.mark.parametrize(
    "x, y, options, text",
    [
        ((3, 8, 8), (1, 3, 8, 8), {}, r"x must be \[N, C, H, W\] with N > 0, got \(3, 8, 8\)"),
        ((1, 3, 8, 8), (0, 3, 8, 8), {}, "y must be"),
        ((1, 3, 8, 8), (1, 1, 8, 8), {}, "same channels, got 3 and 1"),
        ((1, 3, 8, 6), (1, 3, 8, 8), {}, r"patch must be at most 6 for x of \(1, 3, 8, 6\), got 7"),
        ((1, 3, 8, 8), (1, 3, 8, 8), {"patches": 0}, "patches must be 1 or more, got 0"),
        ((1, 3, 8, 8), (1, 3, 8, 8), {"projections": 0}, "projections must be 1 or more, got 0"),
        ((1, 3, 8, 8), (1, 3, 8, 8), {"patch": 0}, "patch must be 1 or more, got 0"),
    ],
)
def test_wrong_arguments_are_named(x, y, options, text):
    with pytest.raises(ValueError, match=text):
        patch_swd(torch.zeros(x), torch.zeros(y), **options)
