# SPDX-License-Identifier: MIT
"""instance_norm_act_fwd and _bwd on the CPU against a float64 formula written out here."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from raw_calls import (
    DTYPES,
    LAYOUTS,
    STRIDED,
    Guarded,
    accumulator,
    assert_near,
    folded,
    ops,
    padded,
    placed,
    strided,
    workspace,
)
from torch import Tensor

SLOPES = {0: 1.0, 1: 0.0, 2: 0.2}
# Odd sides, channels below, at and above a block of vectors, a row of many tails, one row, one
# pixel wide, pads up to side - 1, a row of which every pixel but one has a mirror image.
SHAPES = [
    ((2, 3, 5, 7), 4),
    ((1, 70, 9, 33), 1),
    ((2, 16, 8, 8), 0),
    ((1, 5, 2, 2), 1),
    ((1, 1, 3, 40), 2),
    ((1, 20, 9, 5), 2),
    ((1, 33, 70, 18), 3),
    ((3, 64, 4, 1), 0),
    ((1, 2, 31, 31), 0),
    ((1, 130, 6, 20), 1),
    ((1, 4, 1, 300), 0),
]


@dataclass
class Case:
    shape: tuple[int, int, int, int]
    pad: int
    dtype: torch.dtype
    layout: str
    act: int = 1
    affine: bool = False
    residual: str | None = None
    skip: str | None = None
    with_grad_y: bool = True
    with_grad_residual: bool = False
    mean: float = 3.0
    eps: float = 1e-5


def channels(parameter: Tensor | None) -> Tensor | float:
    return 1.0 if parameter is None else parameter.double()[None, :, None, None]


def run(case: Case) -> dict[str, Tensor]:
    """Call both raw ops, compare all they write with the truth, and return it."""
    torch.manual_seed(1 + case.act + 10 * case.pad)
    (n, c, h, w), pad, dtype = case.shape, case.pad, case.dtype
    padded_shape = (n, c, h + 2 * pad, w + 2 * pad)
    acc = accumulator(dtype)
    x = placed((torch.randn(case.shape, dtype=torch.float64) + case.mean).to(dtype), case.layout)
    weight = placed(torch.randn(c, dtype=torch.float64).to(acc)) if case.affine else None
    bias = placed(torch.randn(c, dtype=torch.float64).to(acc)) if case.affine else None
    residual = torch.randn(case.shape, dtype=torch.float64).to(dtype) if case.residual else None

    y = Guarded(padded_shape, dtype, case.layout)
    mean, rstd = Guarded((n, c), acc), Guarded((n, c), acc)
    work = workspace(x, case.layout)
    ops.instance_norm_act_fwd(
        x,
        weight,
        bias,
        None if residual is None else strided(residual, case.residual),
        case.act,
        0.2,
        pad,
        case.eps,
        y.tensor,
        mean.tensor,
        rstd.tensor,
        work.tensor,
    )
    true_mean = x.double().mean((2, 3), keepdim=True)
    true_rstd = (x.double().var((2, 3), unbiased=False, keepdim=True) + case.eps).rsqrt()
    xhat = (x.double() - true_mean) * true_rstd
    z = xhat * channels(weight) + (0.0 if bias is None else channels(bias))
    slope = torch.where(z > 0, 1.0, torch.tensor(SLOPES[case.act], dtype=torch.float64))
    true_y = padded(z * slope + (0.0 if residual is None else residual.double()), pad)
    # What x - mean has lost before it is scaled up: the rounding of the mean.
    largest_scale = (true_rstd * channels(weight)).abs().max().item()
    shift = (abs(case.mean) + 5) * true_rstd.max().item()
    assert_near(mean.check("mean"), true_mean[:, :, 0, 0], "mean", abs(case.mean))
    assert_near(rstd.check("rstd"), true_rstd[:, :, 0, 0], "rstd")
    assert_near(y.check("y"), true_y, "y", (abs(case.mean) + 5) * largest_scale)

    # Where rounding decides the sign of z there is no gradient, so that no flip can be told.
    far = z.abs() > 1e-4 * (1 + shift)
    grad_y = (
        torch.randn(padded_shape, dtype=torch.float64).to(dtype) * padded(far, pad)
        if case.with_grad_y
        else None
    )
    skip = torch.randn(case.shape, dtype=torch.float64).to(dtype) * far if case.skip else None
    grad_x = Guarded(case.shape, dtype, case.layout)
    grad_residual = Guarded(case.shape, dtype, case.layout) if case.with_grad_residual else None
    sums = Guarded((2, n, c), acc)
    work.tensor.fill_(float("nan"))
    ops.instance_norm_act_bwd(
        None if grad_y is None else placed(grad_y, case.layout),
        None if skip is None else strided(skip, case.skip),
        x,
        weight,
        bias,
        mean.tensor,
        rstd.tensor,
        case.act,
        0.2,
        pad,
        grad_x.tensor,
        None if grad_residual is None else grad_residual.tensor,
        sums.tensor,
        work.tensor,
    )
    g = torch.zeros(case.shape, dtype=torch.float64)
    if grad_y is not None:
        g = g + folded(grad_y.double(), pad, case.shape)
    if skip is not None:
        g = g + skip.double()
    if grad_residual is not None:
        assert_near(grad_residual.check("grad_residual"), g, "grad_residual")
        g = grad_residual.tensor.double()  # rounded, it is what goes on through the norm
    dz = g * slope
    sum_dz, sum_product = dz.sum((2, 3)), (dz * xhat).sum((2, 3))
    magnitude = dz.abs().sum((2, 3)).max().item()
    means = (sum_dz[:, :, None, None] + xhat * sum_product[:, :, None, None]) / (h * w)
    true_grad_x = true_rstd * channels(weight) * (dz - means)
    assert_near(sums.check("sums")[0], sum_dz, "sum of dz", magnitude)
    assert_near(sums.tensor[1], sum_product, "sum of dz * xhat", magnitude * (1 + shift))
    largest = largest_scale * dz.abs().max().item() * (1 + shift) * (1 + xhat.abs().max().item())
    assert_near(grad_x.check("grad_x"), true_grad_x, "grad_x", largest)
    work.check_margins("workspace")
    outputs = {"y": y, "mean": mean, "rstd": rstd, "grad_x": grad_x, "sums": sums}
    return {name: guarded.tensor.clone() for name, guarded in outputs.items()}


@pytest.mark.parametrize(("shape", "pad"), SHAPES, ids=lambda v: str(v).replace(", ", "x"))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward_and_backward_equal_the_formula(dtype, layout, shape, pad):
    # Each residual, skip, activation and choice of outputs at least once.
    for i, kind in enumerate((None, *STRIDED)):
        case = Case(
            shape,
            pad,
            dtype,
            layout,
            act=i % 3,
            affine=i % 2 == 0,
            residual=kind,
            skip=(None, *reversed(STRIDED))[i],
            with_grad_y=i not in (2, 5),
            with_grad_residual=i in (1, 2, 4, 6),
        )
        try:
            run(case)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_hold_at_a_large_mean(layout):
    # E[x^2] - E[x]^2 is 6 % off here: 1000^2 leaves float32 four bits for a variance of one.
    for shape in ((1, 70, 64, 64), (2, 16, 9, 7)):
        run(Case(shape, 1, torch.float32, layout, act=0, mean=1000.0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_hold_where_the_first_values_are_far_from_the_rest(layout):
    x = torch.randn(1, 20, 64, 48) + 5
    x[:, :, :3] = -3000.0  # the stretch from which a kernel may take its estimate of the mean
    mean, rstd = Guarded((1, 20), torch.float32), Guarded((1, 20), torch.float32)
    y = Guarded(x.shape, torch.float32, layout)
    work = workspace(x, layout)
    ops.instance_norm_act_fwd(
        placed(x, layout), None, None, None, 0, 0.0, 0, 1e-5,
        y.tensor, mean.tensor, rstd.tensor, work.tensor,
    )  # fmt: skip
    truth = (x.double().var((2, 3), unbiased=False) + 1e-5).rsqrt()
    assert_near(mean.check("mean"), x.double().mean((2, 3)), "mean", 3000.0)
    assert_near(rstd.check("rstd"), truth, "rstd")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("act", "slope"), SLOPES.items())
def test_derivative_at_zero_is_that_below_zero(dtype, layout, act, slope):
    # A constant plane: x - mean is exactly 0, so every pixel sits on the kink.
    shape = (1, 19, 6, 7)
    acc = accumulator(dtype)
    mean, rstd = torch.full((1, 19), 2.0, dtype=acc), torch.full((1, 19), 1.0, dtype=acc)
    x, grad_y = torch.full(shape, 2.0).to(dtype), torch.randn(shape).to(dtype)
    grad_x, sums = Guarded(shape, dtype, layout), Guarded((2, 1, 19), acc)
    ops.instance_norm_act_bwd(
        placed(grad_y, layout), None, placed(x, layout), None, None, mean, rstd, act, 0.2, 0,
        grad_x.tensor, None, sums.tensor, workspace(x, layout).tensor,
    )  # fmt: skip
    dz = grad_y.double() * slope
    assert_near(grad_x.check("grad_x"), dz - dz.mean((2, 3), keepdim=True), "grad_x", 4.0)
    assert torch.equal(sums.check("sums")[1], torch.zeros(1, 19, dtype=acc))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", SLOPES)
def test_nan_spoils_its_own_plane_and_no_other(dtype, layout, act):
    x = (torch.randn(1, 37, 5, 6) + 1).to(dtype)
    x[0, 20, 2, 3] = float("nan")
    y, mean = Guarded((1, 37, 7, 8), dtype, layout), Guarded((1, 37), accumulator(dtype))
    rstd, work = Guarded((1, 37), accumulator(dtype)), workspace(x, layout)
    ops.instance_norm_act_fwd(
        placed(x, layout), None, None, None, act, 0.2, 1, 1e-5,
        y.tensor, mean.tensor, rstd.tensor, work.tensor,
    )  # fmt: skip
    spoilt = torch.zeros(37, dtype=torch.bool)
    spoilt[20] = True
    for name, result in (("y", y), ("mean", mean), ("rstd", rstd)):
        nan = result.tensor[0].isnan().view(37, -1)
        assert torch.equal(nan.all(1), spoilt) and torch.equal(nan.any(1), spoilt), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_relu_of_infinities(layout):
    # A bias of -inf or inf puts z there: relu gives 0 and inf, not 0 * inf = NaN.
    x = torch.randn(1, 2, 4, 4)
    bias = torch.tensor([float("-inf"), float("inf")])
    y = Guarded(x.shape, torch.float32, layout)
    mean, rstd = torch.empty(1, 2), torch.empty(1, 2)
    work = workspace(x, layout)
    ops.instance_norm_act_fwd(
        placed(x, layout), None, bias, None, 1, 0.0, 0, 1e-5, y.tensor, mean, rstd, work.tensor
    )
    assert torch.equal(y.tensor[0, 0], torch.zeros(4, 4))
    assert torch.equal(y.tensor[0, 1], torch.full((4, 4), float("inf")))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_on_any_number_of_threads(dtype, layout):
    before = torch.get_num_threads()
    # Large enough that PyTorch wakes a second thread; one image, and rows that no 2 or 3 divides.
    case = Case(
        (1, 72, 65, 61), 1, dtype, layout, act=2, affine=True, residual="interior channels_last",
        skip="interior contiguous", with_grad_residual=dtype == torch.bfloat16,
    )  # fmt: skip
    try:
        torch.set_num_threads(1)
        alone = run(case)
        for threads in (2, 5):
            torch.set_num_threads(threads)
            for name, result in run(case).items():
                assert torch.equal(result, alone[name]), f"{name} on {threads} threads"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_images(layout):
    x, stats = torch.empty(0, 3, 4, 4), torch.empty(0, 3)
    work = workspace(x, layout).tensor
    y, sums = torch.empty(0, 3, 6, 6), torch.empty(2, 0, 3)
    ops.instance_norm_act_fwd(x, None, None, None, 1, 0.0, 1, 1e-5, y, stats, stats, work)
    ops.instance_norm_act_bwd(
        y, None, x, None, None, stats, stats, 1, 0.0, 1, x.clone(), None, sums, work
    )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_pair_is_two_calls(layout):
    def allocate(x):
        outputs = [Guarded((1, 5, 6, 7), torch.float32, layout)]
        outputs += [Guarded((1, 5), torch.float32) for _ in range(2)]
        return [*outputs, workspace(x, layout)]

    xs = [placed(torch.randn(1, 5, 4, 5) + i, layout) for i in range(2)]
    residuals = [None, torch.randn(1, 5, 4, 5)]
    none, options = [None, None], (1, 0.2, 1, 1e-5)
    alone, together = ([allocate(x) for x in xs] for _ in range(2))
    for x, residual, outputs in zip(xs, residuals, alone, strict=True):
        ops.instance_norm_act_fwd(
            x, None, None, residual, *options, *(out.tensor for out in outputs)
        )
    lists = [[a.tensor, b.tensor] for a, b in zip(*together, strict=True)]
    ops.instance_norm_act_fwd_pair(xs, none, none, residuals, *options, *lists)
    for first, second in zip(alone, together, strict=True):
        for name, one, other in zip(("y", "mean", "rstd"), first, second, strict=False):
            assert torch.equal(one.check(name), other.check(name)), name


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (None, "lists must hold two tensors each, got one of 1"),
        (torch.zeros(1, 3, 4, 6), r"y must be of shape \[1, 3, 4, 6\]|x\[1\]"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.float64), "dtype"),
    ],
)
def test_what_is_no_pair_is_refused(second, message):
    x = torch.zeros(1, 3, 4, 5)
    xs = [x] if second is None else [x, second]
    outs = [[torch.empty_like(x), torch.empty_like(x)]]
    outs += [[torch.empty(1, 3), torch.empty(1, 3)] for _ in range(2)] + [[torch.empty(0)] * 2]
    none = [None, None]
    with pytest.raises(RuntimeError, match=message):
        ops.instance_norm_act_fwd_pair(xs, none, none, none, 1, 0.2, 0, 1e-5, *outs)
