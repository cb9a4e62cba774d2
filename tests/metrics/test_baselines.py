# SPDX-License-Identifier: MIT
import numpy as np
import pytest
import torch

from cyclegan_fast.metrics import colour_match, compare, patch_swd, psnr, ssim

RNG = np.random.default_rng(6)


def domain(n, mixing, mean) -> torch.Tensor:
    """Pictures whose colours have covariance mixing @ mixing.T, small enough not to be clamped."""
    colours = RNG.standard_normal((n, 3, 12, 14))
    mixed = np.einsum("dc,nchw->ndhw", mixing, colours) + np.array(mean).reshape(1, 3, 1, 1)
    return torch.from_numpy(mixed)


SOURCE = domain(6, 0.05 * RNG.standard_normal((3, 3)), (0.2, -0.1, 0.3))
TARGET = domain(7, 0.05 * RNG.standard_normal((3, 3)), (-0.3, 0.1, 0.0))


def colours(x: torch.Tensor) -> np.ndarray:
    return x.numpy().transpose(1, 0, 2, 3).reshape(3, -1)


def test_mean_std_gives_the_targets_mean_and_deviation_per_channel():
    got = colours(colour_match(SOURCE, SOURCE, TARGET))
    wanted = colours(TARGET)
    assert abs(got.mean(axis=1) - wanted.mean(axis=1)).max() < 1e-12
    assert abs(got.std(axis=1) - wanted.std(axis=1)).max() < 1e-12
    # Channels are scaled, not mixed: their correlations stay.
    assert abs(np.corrcoef(got) - np.corrcoef(colours(SOURCE))).max() < 1e-9


def test_covariance_gives_the_targets_mean_and_covariance_by_the_shortest_way():
    got = colours(colour_match(SOURCE, SOURCE, TARGET, "covariance"))
    wanted = colours(TARGET)
    assert abs(got.mean(axis=1) - wanted.mean(axis=1)).max() < 1e-12
    assert abs(np.cov(got, bias=True) - np.cov(wanted, bias=True)).max() < 1e-12
    # The map of least effort is the gradient of a convex function: its matrix is symmetric and
    # positive definite.
    x, y = (z - z.mean(axis=1, keepdims=True) for z in (colours(SOURCE), got))
    matrix = y @ x.T @ np.linalg.inv(x @ x.T)
    assert abs(matrix - matrix.T).max() < 1e-9
    assert np.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("method", ["mean_std", "covariance"])
def test_a_domain_is_matched_to_itself_by_leaving_it_alone(method):
    assert (colour_match(SOURCE, SOURCE, SOURCE, method) - SOURCE).abs().max() < 1e-9


@pytest.mark.parametrize("method", ["mean_std", "covariance"])
def test_flat_pictures_get_the_targets_mean_and_stay_finite(method):
    flat = torch.full((1, 3, 4, 4), 0.7)
    got = colour_match(flat, flat, TARGET, method)
    mean = TARGET.mean(dim=(0, 2, 3)).float().view(1, 3, 1, 1)
    assert (got - mean).abs().max() < 1e-6


def test_one_channel_dtype_and_clamping():
    x = torch.linspace(-1, 1, 64, dtype=torch.float32).view(1, 1, 8, 8)
    got = colour_match(x, x, 3 * x)
    assert got.dtype == torch.float32 and got.is_contiguous()
    assert torch.allclose(got, (3 * x).clamp(-1, 1), atol=1e-6)
    assert colour_match(x[:0], x, x).shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ((SOURCE, SOURCE[:, :1], TARGET), r"source must be \[N, 3, H, W\], got \(6, 1, 12, 14\)"),
        ((SOURCE, SOURCE, TARGET[:0]), "target must be"),
        ((SOURCE, SOURCE, TARGET[0]), "target must be"),
        ((SOURCE, SOURCE, TARGET, "exact"), 'method must be "mean_std" or "covariance", got'),
    ],
)
def test_wrong_arguments_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        colour_match(*arguments)


def test_compare_scores_a_translation_beside_its_baselines():
    truth = domain(4, 0.05 * RNG.standard_normal((3, 3)), (0, 0, 0))
    inputs = (truth * 0.7 + 0.1).clamp(-1, 1)
    translated = truth + 0.01
    table = compare(translated, inputs, inputs, TARGET, truth)
    assert list(table) == ["input as is", "colour match", "translated", "floor"]
    assert table["translated"]["psnr"] == psnr(translated, truth).item()
    assert table["translated"]["ssim"] == ssim(translated, truth).item()
    assert table["input as is"]["patch_swd"] == patch_swd(inputs, TARGET).item()
    matched = colour_match(inputs, inputs, TARGET)
    assert table["colour match"]["psnr"] == psnr(matched, truth).item()
    assert table["floor"] == {"patch_swd": patch_swd(truth, TARGET).item()}

    unpaired = compare(translated, inputs, inputs, TARGET)
    assert list(unpaired) == ["input as is", "colour match", "translated"]
    assert all(list(row) == ["patch_swd"] for row in unpaired.values())
