# SPDX-License-Identifier: MIT
"""The tests of the CUDA ops, with kernels and host code executed on the CPU: see emulator.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gpu"), str(HERE.parent / "csrc")]
import emulator  # noqa: E402
import raw_ops  # noqa: E402
from fenced import Fences  # noqa: E402
from raw_ops import NormCase  # noqa: E402
from test_cuda_augment import test_augment  # noqa: E402, F401
from test_cuda_beside_convolution import (  # noqa: E402, F401
    test_norm_far_from_zero_from_what_a_convolution_left,
    test_norm_from_what_a_convolution_left,
    test_norms_in_pairs_from_what_convolutions_left,
)
from test_cuda_generator_loss import (  # noqa: E402, F401
    test_generator_loss,
    test_generator_loss_of_unaligned_memory_and_wide_originals,
    test_generator_loss_without_gradients_is_the_same,
)
from test_cuda_ops import (  # noqa: E402, F401 - their bodies are what is collected here
    DTYPES,
    LAYOUTS,
    check_reflect_pad2d,
    test_loss_gradient_of_one_side,
    test_losses,
    test_norm_awkward_shapes,
    test_norm_every_option,
    test_norm_far_from_zero,
    test_norm_from_unaligned_memory,
    test_norm_of_a_pair_from_unaligned_memory,
    test_norm_of_a_spike,
    test_norm_of_constant_planes,
    test_norm_spreads_what_is_not_finite,
    test_norms_in_pairs,
    test_reflect_pad2d,
    test_reflect_pad2d_copy,
    test_the_derivative_at_zero_is_that_below_zero,
)
from test_cuda_pool_exchange import test_pool_exchange  # noqa: E402, F401

from cyclegan_fast.ops import PackedPictures, augment_reference  # noqa: E402

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))


@pytest.fixture(params=emulator.SCHEDULES, autouse=True)
def schedule(request, monkeypatch):
    """A kernel that is right in one order of its threads and wrong in another has a race."""
    ops, set_schedule = emulator.load(sanitize=emulator.SANITIZED in os.environ)
    monkeypatch.setattr(raw_ops, "ops", ops)
    monkeypatch.setattr(raw_ops, "device", "cpu")
    set_schedule(request.param, seed=7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "pad", "act"),
    [
        ((1, 256, 16, 16), 1, "relu"),
        ((1, 64, 40, 40), 3, "relu"),
        ((1, 512, 7, 7), 0, "leaky_relu"),
    ],
)
def test_norm_of_the_networks_channels(dtype, layout, shape, pad, act):
    """test_norm_network_shapes on smaller planes."""
    options = {"residual": True, "grad_skip": True, "grad_residual": True}
    NormCase(shape, dtype, layout, act, pad, **options).check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_of_more_planes_than_a_grids_y(layout):
    """test_norm_of_many_planes and test_reflect_pad2d_of_many_planes, once per layout."""
    NormCase((70000, 1, 2, 2), torch.bfloat16, layout, "relu", 1).check()
    check_reflect_pad2d(torch.bfloat16, layout, (70000, 1, 2, 3), 1)


def test_augment_reads_no_byte_beyond_its_pictures():
    """The last picture ends at a page that nobody may touch; weights reach beyond it."""
    pixels = torch.randint(256, (9, 7, 3), dtype=torch.uint8).numpy()
    pictures = PackedPictures.pack([pixels], [(11, 12)])
    fences = Fences(at_end=True)
    levels = fences.tensor(pictures.levels.shape, torch.uint8).copy_(pictures.levels)
    picks, out = torch.zeros(1, 4, dtype=torch.int64), torch.empty(1, 3, 11, 12)
    raw_ops.ops.augment_fwd(levels, pictures.table, pictures.taps, picks, out)
    assert torch.equal(out, augment_reference(pictures, picks, (11, 12)))
