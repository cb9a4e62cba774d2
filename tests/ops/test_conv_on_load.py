# SPDX-License-Identifier: MIT
"""The implicit GEMM with the norms beside it applied while it loads, against float64."""

from __future__ import annotations

import pytest
import torch
from conv_raw import implicit_in_small_tiles
from on_load_case import layer

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_implicit as conv
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
# (kind, x, weight, padding, stride): the trunk's, over a block of channels on either side; the
# discriminator's and the generator's by 2 and by 1; one result of one pixel; the generator's end.
TRUNK = ("reflect", (2, 17, 5, 4), (3, 17, 3, 3), 1, 1)
BACK = ("reflect", (1, 3, 5, 6), (17, 3, 3, 3), 1, 1)
DOWN = ("zeros", (2, 3, 7, 9), (17, 3, 3, 3), 1, 2)
FLAT = ("zeros", (1, 18, 5, 4), (3, 18, 4, 4), 1, 1)
UP = ("transposed", (2, 18, 3, 5), (18, 4, 3, 3), 1, 2)
END = ("reflect", (1, 5, 4, 6), (3, 5, 7, 7), 3, 1)
PIXEL = ("zeros", (3, 4, 2, 2), (5, 4, 4, 4), 1, 2)
PIXEL_UP = ("transposed", (1, 4, 1, 1), (4, 3, 3, 3), 1, 2)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    implicit_in_small_tiles(monkeypatch)


@pytest.mark.parametrize(
    ("case", "dtype", "options"),
    [
        (TRUNK, F32, {"act": 1, "affine": True, "moments": True}),
        (DOWN, BF16, {"act": 2}),
        (DOWN, F16, {"act": 2, "affine": True, "moments": True}),
        (FLAT, F32, {"act": 0, "affine": True, "bias": True}),
        (END, BF16, {"act": 1, "bias": True, "tanh": True}),
        (PIXEL, F32, {"act": 1, "affine": True}),
        (UP, F32, {"act": 1, "moments": True}),
        (UP, BF16, {"act": 2, "affine": True, "bias": True}),
        (PIXEL_UP, F16, {"act": 0, "affine": True}),
    ],
    ids=str,
)
def test_forward(case, dtype, options):
    layer(case, dtype, alone=dtype is F16).check_forward(**options)


def test_forward_far_from_zero():
    layer(TRUNK, centre=1000.0).check_forward(affine=True)
    layer(DOWN, F16, centre=1000.0).check_forward(act=0)


@pytest.mark.parametrize(
    ("case", "dtype", "options"),
    [
        (BACK, F32, {"affine": True}),
        (DOWN, BF16, {}),
        (DOWN, F16, {"affine": True, "norm": {"act": 2, "affine": True, "skip": True}}),
        (FLAT, F32, {"norm": {"act": 2}}),
        (BACK, BF16, {"norm": {"act": 1, "affine": True, "skip": True}}),
        (END, BF16, {"on_load": False, "norm": {"act": 1, "affine": True}}),
        (PIXEL, F32, {"affine": True}),
        (UP, F32, {"affine": True, "norm": {"act": 1, "skip": True}}),
        (UP, BF16, {}),
        (PIXEL_UP, F16, {"on_load": False, "norm": {"act": 0, "affine": True}}),
    ],
    ids=str,
)
def test_gradient_of_input(case, dtype, options):
    layer(case, dtype, alone=dtype is F16).check_gradient_of_input(**options)


def test_gradient_of_input_far_from_zero():
    layer(DOWN, centre=1000.0).check_gradient_of_input(affine=True)
    layer(UP, F16, centre=1000.0).check_gradient_of_input()


@pytest.mark.parametrize(
    ("case", "dtype", "options"),
    [
        (TRUNK, F32, {"before": {"affine": True}, "behind": {"affine": True}}),
        (BACK, BF16, {"before": {"act": 2}, "behind": {}, "dtype": F32}),
        (END, F32, {"before": {}, "tanh": True}),
        (DOWN, F16, {"before": {"act": 2, "affine": True}}),
        (DOWN, BF16, {"behind": {"affine": True}, "needs": (False, True)}),
        (FLAT, F32, {"before": {"act": 0, "affine": True}, "needs": (True, False)}),
        (PIXEL, F32, {"before": {"affine": True}, "behind": {}}),
        (UP, F32, {"before": {"affine": True}, "behind": {"affine": True}}),
        (UP, BF16, {"before": {"act": 0}, "dtype": F32, "needs": (True, False)}),
        (PIXEL_UP, F16, {"behind": {"affine": True}}),
    ],
    ids=str,
)
def test_gradient_of_weight(case, dtype, options):
    layer(case, dtype, alone=dtype is F16).check_gradient_of_weight(**options)


def test_gradient_of_weight_far_from_zero():
    options = {"before": {"affine": True}, "behind": {}}
    layer(DOWN, centre=1000.0).check_gradient_of_weight(**options)
    layer(UP, F16, centre=1000.0).check_gradient_of_weight(**options)


def test_what_is_refused():
    tested = layer(DOWN)
    x, weight = tested.images(0)
    y = tested.result(x, weight)
    norm, of_norm = tested.before(0, x, affine=True), tested.behind(0, y, affine=True)
    how = (1, 2, False, True)

    def forward(**changed):
        conv.forward([Forward(x, weight, None, y, None, norm._replace(**changed))], *how)

    with pytest.raises(ValueError, match=r"mean .* must be float32 \[2, 3\], dense, got .*float64"):
        forward(mean=norm.mean.double())
    with pytest.raises(ValueError, match=r"rstd .* must be float32 \[2, 3\], dense"):
        forward(rstd=norm.rstd[:1])
    with pytest.raises(ValueError, match=r"bias .* must be float32 \[1, 3\], dense"):
        forward(bias=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="weight .* dense"):
        forward(weight=torch.zeros(6)[::2])

    with pytest.raises(ValueError, match="channels_last alone, got strides"):
        x, kept = x.contiguous(), x
        forward()
    x = kept

    def back(given=None, act=None, **changed):
        given_norm = of_norm._replace(**changed)
        conv.gradient_of_input([OfInput(y, act, weight, x, given, given_norm)], 1, 2, True)

    with pytest.raises(ValueError, match="no norm stands behind a tanh"):
        back(act=y)
    with pytest.raises(ValueError, match="grad_y's sizes, dtype and layout"):
        back(x=of_norm.x.contiguous())
    with pytest.raises(ValueError, match=r"sums .* must be float32 \[2, 2, 17\]"):
        back(sums=of_norm.sums[:, :1])
    with pytest.raises(ValueError, match="masked must come with pad 0, got pad 1"):
        back(tested._norm(0, pad=1)._replace(masked=True))
