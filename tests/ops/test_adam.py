# SPDX-License-Identifier: MIT
"""adam_ against float64, over every back end: many tensors, their 16-bit copies, skipped steps."""

from __future__ import annotations

import pytest
import torch
from numerics import EPS, max_error
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import BackendUnavailableError
from cyclegan_fast.ops.adam import Tables, adam, adam_reference
from cyclegan_fast.training.optimizer import Adam

SHAPES = [(64, 3, 7, 7), (1,), (4096,), (4097,), (16, 8, 3, 3), (5, 0), (), (64,)]
GROUPS = ("params", "grads", "exp_avgs", "exp_avg_sqs")
BETAS = {"beta1": 0.5, "beta2": 0.999}


class State:
    """The operands of a few steps, on a device, in a dtype."""

    def __init__(self, device: str, dtype=torch.float32, half=torch.bfloat16, shapes=SHAPES):
        generator = torch.Generator().manual_seed(3)

        def random(shape, spread):
            values = torch.randn(shape, generator=generator, dtype=torch.float64) * spread
            values = values.to(device, dtype)
            return values.to(memory_format=torch.channels_last) if values.dim() == 4 else values

        self.params = [random(shape, 0.02) for shape in shapes]
        self.params[-1].zero_()  # a bias as it begins: nothing hides a wrong step in it
        self.gradients = [[random(shape, 3.0) for shape in shapes] for _ in range(4)]
        self.exp_avgs = [torch.zeros_like(p) for p in self.params]
        self.exp_avg_sqs = [torch.zeros_like(p) for p in self.params]
        self.steps = [torch.zeros((), device=device) for _ in shapes]
        self.lr = torch.tensor(2e-4, device=device)
        self.halves: list[Tensor | None] = [p.to(half) for p in self.params] if half else None
        if self.halves:
            self.halves[1] = None

    def operands(self, i: int):
        return (
            self.params, self.gradients[i], self.exp_avgs, self.exp_avg_sqs, self.steps, self.lr
        )  # fmt: skip

    def everything(self) -> list[Tensor]:
        return [*self.params, *self.exp_avgs, *self.exp_avg_sqs, *self.steps]


def test_steps_of_many_tensors(each_backend, device):
    ours, tables = State(device), Tables()
    truth, eager = State(device, torch.float64, half=None), State(device, half=None)
    for i in range(4):
        adam(*ours.operands(i), **BETAS, halves=ours.halves, tables=tables)
        adam_reference(*truth.operands(i), **BETAS)
        torch._foreach_add_(eager.steps, 1)
        torch._fused_adam_(
            *eager.operands(i)[:4], [], eager.steps, lr=2e-4, **BETAS, weight_decay=0, eps=1e-8,
            amsgrad=False, maximize=False,
        )  # fmt: skip
    for mine, right, theirs in zip(
        ours.everything(), truth.everything(), eager.everything(), strict=True
    ):
        if right.numel():
            bound = 2 * max_error(theirs, right) + 2 * EPS[torch.float32] * right.abs().max().item()
            assert max_error(mine, right) <= bound
    assert [step.item() for step in ours.steps] == [4] * len(SHAPES)
    for half, param in zip(ours.halves, ours.params, strict=True):
        assert half is None or torch.equal(half, param.to(torch.bfloat16))


def test_the_reference_is_torchs_adam(device):
    ours = State(device, torch.float64, half=None)
    parameters = [p.clone().requires_grad_() for p in ours.params]
    theirs = torch.optim.Adam(parameters, lr=ours.lr.item(), betas=(0.5, 0.999))
    for i in range(4):
        adam_reference(*ours.operands(i), **BETAS)
        for parameter, gradient in zip(parameters, ours.gradients[i], strict=True):
            parameter.grad = gradient
        theirs.step()
    for mine, parameter in zip(ours.params, parameters, strict=True):
        torch.testing.assert_close(mine, parameter.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16, None])
def test_a_step_whose_gradients_overflowed_is_none(each_backend, device, half):
    state = State(device, half=half)
    adam(*state.operands(0), **BETAS, halves=state.halves)
    before = [t.clone() for t in state.everything()]
    copies = [h.clone() for h in state.halves or [] if h is not None]
    state.gradients[1][3][5] = float("inf")
    found = torch.ones((), device=device)
    adam(*state.operands(1), **BETAS, halves=state.halves, found_inf=found)
    assert all(torch.equal(a, b) for a, b in zip(state.everything(), before, strict=True))
    kept = [h for h in state.halves or [] if h is not None]
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    # And the very first may be skipped too.
    fresh = State(device, half=half)
    before = [t.clone() for t in fresh.everything()]
    adam(*fresh.operands(0), **BETAS, halves=fresh.halves, found_inf=found)
    assert all(torch.equal(a, b) for a, b in zip(fresh.everything(), before, strict=True))
    adam(*fresh.operands(0), **BETAS, halves=fresh.halves, found_inf=torch.zeros_like(found))
    assert not torch.equal(fresh.params[0], before[0])
    assert fresh.steps[0].item() == 1


def test_gradients_in_another_layout_and_memory_off_the_vectors(each_backend, device):
    shapes = [(8, 4, 3, 3), (33,)]
    one, other = State(device, shapes=shapes), State(device, shapes=shapes)
    other.gradients[0][0] = other.gradients[0][0].contiguous()
    for group in (other.params, other.exp_avgs, other.exp_avg_sqs):
        buffer = torch.empty(34, device=device)
        group[1] = buffer[1:].copy_(group[1])
    for state in (one, other):
        adam(*state.operands(0), **BETAS, halves=state.halves)
    for a, b in zip(one.everything(), other.everything(), strict=True):
        assert torch.equal(a, b)


def test_ten_runs_give_the_same_bits(each_backend, device):
    runs = []
    for _ in range(10):
        state = State(device)
        for i in range(2):
            adam(*state.operands(i), **BETAS, halves=state.halves)
        runs.append(state.everything())
    assert all(torch.equal(a, b) for run in runs for a, b in zip(run, runs[0], strict=True))


def test_a_table_is_written_again_only_when_an_address_changed(fused_backend, device):
    if fused_backend != "triton":
        pytest.skip("only Triton's kernel reads a table")
    state, tables = State(device), Tables()
    tables.find((*state.operands(0)[:4], state.steps), state.halves)
    first = tables.find((*state.operands(0)[:4], state.steps), state.halves)
    assert tables.find((*state.operands(0)[:4], state.steps), state.halves) is first
    assert tables.find((*state.operands(1)[:4], state.steps), state.halves) is not first


def test_float64_in_triton_is_refused_by_name(device):
    state = State("cpu", torch.float64, half=None)
    with backend.use_backend("triton"), pytest.raises(BackendUnavailableError, match="float32"):
        adam(*state.operands(0), **BETAS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.exp_avgs.pop(), "exp_avgs must be as many as params"),
        (lambda s: s.steps.pop(), "steps must be as many as params"),
        (lambda s: s.exp_avgs.__setitem__(1, torch.zeros(2)), r"exp_avgs\[1\] must have its param"),
        (lambda s: s.exp_avgs.__setitem__(1, torch.zeros(1).half()), r"exp_avgs\[1\] must be torc"),
        (lambda s: s.halves.__setitem__(0, s.params[0].clone()), r"halves\[0\] must be torch.floa"),
        (lambda s: s.steps.__setitem__(0, torch.zeros(1)), r"steps\[0\] must be float32 \[\]"),
        (
            lambda s: [
                group.__setitem__(2, torch.zeros(4096, 2)[:, 0])
                for group in (s.params, s.exp_avgs, s.exp_avg_sqs, s.halves, s.gradients[0])
            ],
            r"params\[2\] must fill one stretch|halves\[2\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    state = State("cpu")
    change(state)
    before = [t.clone() for t in state.params]
    with pytest.raises(ValueError, match=message):
        adam(*state.operands(0), **BETAS, halves=state.halves)
    assert all(torch.equal(a, b) for a, b in zip(state.params, before, strict=True))


def test_nothing_to_do():
    adam([], [], [], [], [], torch.tensor(1.0))


def test_tensors_without_elements_only_count(each_backend, device):
    state = State(device, shapes=[(0,), (3, 0)], half=None)
    adam(*state.operands(0), **BETAS)
    assert [step.item() for step in state.steps] == [1, 1]


def test_a_parameter_without_gradient_is_left_alone(each_backend, device):
    parameters = [torch.nn.Parameter(torch.randn(5, device=device)) for _ in range(2)]
    before = parameters[1].detach().clone()
    adam = Adam([("a", parameters[0]), ("b", parameters[1])], lr=0.1, beta1=0.5)
    parameters[0].grad = torch.ones(5, device=device)
    adam.step()
    assert torch.equal(parameters[1].detach(), before) and adam.state_dict()["b/step"] == 0
    assert adam.state_dict()["a/step"] == 1
