# SPDX-License-Identifier: MIT
"""Forwards that write in place, read twice or late: one small network, and many bodies for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


@torch.fx.wrap
def doubles(y):
    """Somebody's function, which fusion knows nothing of and cannot look into."""
    return y.mul_(2)


class Doubles(nn.Module):
    """Writes to its input, and cannot be looked into."""

    def forward(self, y):
        return y.mul_(2 if y.sum() < 1e9 else 3)


class ScaledConv(nn.Conv2d):
    """Inherits forward, and changes what it calls."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight * weight.abs(), bias)


class Net(nn.Module):
    """Two convolutions and norms, and a forward given as a function of them."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(4)
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.norm1 = nn.InstanceNorm2d(4, affine=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.norm2 = nn.InstanceNorm2d(4)
        self.relu_ = nn.ReLU(inplace=True)
        self.relu = nn.ReLU()
        self.pad = nn.ReflectionPad2d(1)
        self.identity = nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.doubles = Doubles()
        self.wrapped = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.same = nn.Conv2d(4, 6, (3, 5), padding="same", dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(
            6, 4, 3, (2, 1), 1, (1, 0), 2, dilation=2, padding_mode="zeros"
        )
        self.scaled = ScaledConv(4, 4, 3)
        nn.init.normal_(self.norm1.weight)
        nn.init.normal_(self.norm1.bias)
        self.body = body

    def forward(self, x):
        return self.body(self, x)


def late_reader_of_the_norm(m, x):
    y = m.norm1(m.conv1(x))
    z = m.relu_(y)
    return m.conv2(z) + y  # y is activated by now


def early_reader_of_the_norm(m, x):
    y = m.norm1(m.conv1(x))
    early = y * 2
    return m.conv2(m.relu_(y)) + early


def other_reader_of_a_norm_not_written(m, x):
    y = m.norm1(m.conv1(x))
    return m.relu(y) + 3 * y


def view_of_the_norm_read_late(m, x):
    y = m.norm1(m.conv1(x))
    view = y[:, :2]
    z = m.relu_(y)
    return m.conv2(z)[:, :2] + view


def write_to_the_sum_after_the_pad(m, x):
    s = m.norm1(m.conv1(x))
    p = m.pad(s)
    s = m.relu_(s)  # the padded copy keeps the values from before
    return F.avg_pool2d(p, 3, 1) + s


def write_to_the_padded_copy(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    p = m.pad(s).mul_(2)  # the unpadded value keeps its own
    return F.avg_pool2d(p, 3, 1) + s


def write_through_an_identity(m, x):
    s = m.norm1(m.conv1(x))
    p = m.pad(s)
    m.identity(s).add_(1)
    return F.avg_pool2d(p, 3, 1) + s


def write_through_a_view_of_the_padded_copy(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    p = m.pad(s)
    p[:, :1] = 5.0
    return F.avg_pool2d(p, 3, 1) + s


def iadd_to_the_norm(m, x):
    y = m.conv1(x)
    z = m.norm1(y)
    z += m.norm2(m.conv2(y))
    return m.pad(z)


def iadd_to_the_skip(m, x):
    skip = m.relu(m.conv1(x))
    view = skip[:, 1:]
    skip += m.norm2(m.conv2(skip.clone()))
    return skip.sum(1, keepdim=True) + view


def iadd_read_early_under_its_old_name(m, x):
    y = m.conv1(x)
    z = m.norm1(y)
    early = z.sum()
    z += y
    return m.conv2(z) + early


def sum_of_a_value_with_itself(m, x):
    y = m.norm1(m.conv1(x))
    return m.conv2(y + y)


def two_norms_in_one_sum(m, x):
    y = m.conv1(x)
    return m.pad(m.norm1(y) + m.norm2(m.conv2(y)))


def broadcast_residual(m, x):
    y = m.conv1(x)
    return m.pad(m.norm2(m.conv2(y)) + y.mean((2, 3), keepdim=True))


def norm_broadcast_to_a_larger_residual(m, x):
    y = m.conv1(x)
    return m.pad(m.norm2(m.conv2(y[:1])) + y)


def broadcast_iadd(m, x):
    y = m.conv1(x)
    z = m.norm2(m.conv2(y))
    z += y.mean(1, keepdim=True)
    return m.pad(z)


def number_times_size_added(m, x):
    y = m.norm1(m.conv1(x))
    return y + x.size(2)


def two_pads_of_one_value(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    return (
        m.conv2(m.pad(s))[:, :, 1:-1, 1:-1]
        + F.pad(s, (2, 2, 2, 2), mode="reflect")[..., 3:-1, 3:-1]
    )


def unequal_pad(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    return F.pad(s, (1, 0, 1, 0), mode="reflect")


def view_needs_strides(m, x):
    s = m.norm1(m.conv1(x))
    return m.pad(s).sum() + s.view(s.size(0), -1)


def norm_output_returned_beside_its_pad(m, x):
    s = m.relu_(m.norm1(m.conv1(x)))
    return s, m.pad(s)


def dead_value_with_a_write(m, x):
    y = m.norm1(m.conv1(x))
    y.mul_(3)
    return m.conv2(y)


def norm_of_the_input_and_a_write_to_it(m, x):
    y = m.norm2(m.conv1(x))
    x = x * 1.0
    m.relu_(x)
    return y.sum(1, keepdim=True) + x


def shared_layers(m, x):
    y = m.relu_(m.norm1(m.conv1(x)))
    y = m.relu_(m.norm1(m.conv2(m.pad(y))))
    return m.conv2(m.relu(m.norm1(y)))


def functional_pad_and_dropout_in_eval(m, x):
    s = m.drop(m.relu(m.norm1(m.conv1(x))))
    return m.conv2(F.pad(s, [1, 1, 1, 1], "reflect"))


def conv_read_twice_keeps_its_bias(m, x):
    y = m.conv1(x)
    return m.norm1(y) + y


def slope_and_eps(m, x):
    y = F.leaky_relu(m.norm1(m.conv1(x)), 0.37)
    return F.leaky_relu(F.instance_norm(y, eps=0.1), negative_slope=0.5, inplace=True)


def iadd_to_the_sum_after_the_pad(m, x):
    y = m.conv1(x)
    s = m.norm1(y)
    p = m.pad(s)
    s += y
    return F.avg_pool2d(p, 3, 1) + s


def write_to_the_norms_input(m, x):
    y = m.conv1(x)
    n = m.norm1(y)
    y = F.relu(y, True)
    return m.conv2(m.relu(n)) + y


def write_to_a_view_of_the_norms_input(m, x):
    y = m.conv1(x)
    n = m.norm1(y)
    y.transpose(-1, -2).mul_(2)
    return m.conv2(m.relu(n)) + y


def unknown_function_writes_to_the_norms_input(m, x):
    y = m.conv1(x)
    n = m.norm1(y)
    doubles(y)
    return m.conv2(m.relu(n)) + y


def unknown_module_writes_to_the_norms_input(m, x):
    y = m.conv1(x)
    n = m.norm1(y)
    m.doubles(y)
    return m.conv2(m.relu(n)) + y


def write_by_index_to_the_norms_input(m, x):
    y = m.conv1(x)
    n = m.norm1(y)
    y[..., :1] = 4.0
    return m.conv2(m.relu(n)) + y


def every_kind_of_convolution(m, x):
    y = m.relu_(m.norm1(m.wrapped(m.norm1(m.conv1(x)))))
    y = m.norm1(m.up(F.instance_norm(m.same(y))))
    return m.norm2(m.scaled(y))


def sums_with_a_factor(m, x):
    y = m.conv1(x)
    z = torch.add(m.norm1(y), y, alpha=3)
    return m.norm2(m.conv2(z)).add(y, alpha=2)


def pad_of_nothing_is_a_copy(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    return F.pad(s, (0, 0, 0, 0), mode="reflect").mul_(2) + s


def eps_from_the_size(m, x):
    y = F.instance_norm(m.conv1(x), eps=x.size(-1) * 1e-2)
    return F.instance_norm(m.conv2(y), eps=1)


CASES = [
    value
    for value in list(globals().values())
    if getattr(value, "__code__", None) and value.__code__.co_varnames[:2] == ("m", "x")
]
