# SPDX-License-Identifier: MIT
"""What is done with networks: saved, copied, moved, compiled, wrapped, replicated, undone."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from cyclegan_fast import accelerate, backend, explain, models, restore
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.fusion import plan_of
from cyclegan_fast.fusion.accelerate import PlannedForward
from cyclegan_fast.fusion.modules import installed

sys.path.insert(0, str(Path(__file__).parent))
from fusion_compare import X, assert_same, network, planned, run  # noqa: E402


def test_nothing_but_forward_is_touched_and_restore_takes_it_back():
    net = network()
    text, keys = repr(net), list(net.state_dict())
    parameters = [(id(p), p._version, p.stride()) for p in net.parameters()]
    attributes = {path: set(module.__dict__) for path, module in net.named_modules()}
    classes = {path: type(module) for path, module in net.named_modules()}
    assert accelerate(net) is net
    net(X)
    assert repr(net) == text
    assert list(net.state_dict()) == keys
    assert [(id(p), p._version, p.stride()) for p in net.parameters()] == parameters
    assert {path: type(module) for path, module in net.named_modules()} == classes
    assert set(net.__dict__) - attributes[""] == {"forward", "_replicate_for_data_parallel"}
    assert type(network()).forward is models.ResnetGenerator.forward
    assert restore(net) is net
    assert {path: set(module.__dict__) for path, module in net.named_modules()} == attributes
    assert torch.equal(net(X), network()(X))


def test_twice_is_once_and_parts_may_come_first_or_later():
    expected = run(network(), X)
    net = accelerate(accelerate(network()))
    assert list(planned(net)) == [""]
    assert_same(run(net, X), expected)
    accelerate(net.model[10])
    assert set(planned(net)) == {"", "model.10"}
    assert_same(run(net, X), expected)
    net = network()
    accelerate(net.model)
    accelerate(net)
    assert list(planned(net)) == [""]
    assert_same(run(net, X), expected)
    restore(net)
    assert not planned(net)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save", "deepcopy twice"])
def test_a_copy_walks_on_its_own_parameters(how):
    net = accelerate(network())
    before = run(net, X)
    if how == "pickle":
        other = pickle.loads(pickle.dumps(net))
    elif how == "torch.save":
        stream = io.BytesIO()
        torch.save(net, stream)
        other = torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    else:
        other = copy.deepcopy(copy.deepcopy(net) if "twice" in how else net)
    assert installed(other).net is other
    assert_same(run(other, X), before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    assert_same(run(other, X), run(restore(copy.deepcopy(other)), X))
    assert_same(run(net, X), before)
    assert planned(other)[""]._renewals == 0
    assert not planned(other)[""].plain_calls


def test_state_dicts_go_between_plain_and_accelerated():
    net, other = accelerate(network()), network(2)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(X), other(X), rtol=0, atol=1e-12)
    other = network(3)
    net.load_state_dict(other.state_dict())
    torch.testing.assert_close(net(X), other(X), rtol=0, atol=1e-12)


def test_dtype_and_grad_switches_after_accelerate():
    net = accelerate(network())
    assert net.float()(X.float()).dtype == torch.float32
    assert net.bfloat16()(X.bfloat16()).dtype == torch.bfloat16
    net.double().requires_grad_(False)
    assert not net(X).requires_grad
    x = X.clone().requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None and all(p.grad is None for p in net.parameters())
    net.requires_grad_(True)
    with torch.no_grad():
        assert not net(X).requires_grad
    with torch.inference_mode():
        assert net(X).is_inference()


def test_wrappers_are_looked_through():
    net = network()
    parallel = nn.DataParallel(net)
    assert accelerate(parallel) is parallel
    assert list(planned(parallel)) == ["module"]
    torch.testing.assert_close(parallel(X), network()(X), rtol=0, atol=1e-12)
    average = torch.optim.swa_utils.AveragedModel(accelerate(network()))
    average.update_parameters(network(2))
    torch.testing.assert_close(average(X), network(2)(X), rtol=0, atol=1e-12)


def test_functional_call_uses_the_parameters_it_is_given():
    net, other = accelerate(network()), network(5)
    ours = torch.func.functional_call(net, dict(other.named_parameters()), (X,))
    torch.testing.assert_close(ours, other(X), rtol=0, atol=1e-12)


def test_a_second_derivative_names_the_way_out():
    with backend.use_backend("native"):
        net = accelerate(network())
        x = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        with pytest.raises(DoubleBackwardError, match="restore"):
            gradient.square().sum().backward()
    restore(net)
    (gradient,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert x.grad.isfinite().all()


def test_a_previous_forward_on_the_instance_is_kept():
    net = network()
    original = net.forward

    def doubled(x):
        return 2 * original(x)

    net.forward = doubled
    expected = run(net, X)
    accelerate(net)
    assert isinstance(installed(net), PlannedForward)
    assert_same(run(net, X), expected)
    restore(net)
    assert net.forward is doubled


def test_a_wrapper_put_around_forward_later_stays_and_restore_reaches_inside():
    net = accelerate(network())
    expected = run(network(), X)
    inner = net.forward
    net.forward = lambda x: 3 * inner(x)
    torch.testing.assert_close(net(X), 3 * network()(X), rtol=0, atol=1e-12)
    replica = net._replicate_for_data_parallel()
    assert replica.__dict__["forward"] is net.__dict__["forward"]
    restore(net)
    assert torch.equal(net(X), 3 * network()(X))
    assert inner.__self__.plain_calls == {"restore() was called": 1}
    del net.forward
    assert_same(run(accelerate(net), X), expected)


def test_plans_of_another_version_are_made_again():
    net = accelerate(network())
    expected = net(X)
    state = installed(net).__getstate__()
    assert state["_plans"]
    installed(net).__setstate__({**state, "version": "0"})
    assert not installed(net).plans
    assert torch.equal(net(X), expected)
    assert len(installed(net).plans) == 1


def test_planning_in_one_thread_leaves_networks_in_others_alone():
    net, other = network(), accelerate(network(2))
    expected = [net(X), other(X)]
    failures = []
    stop = threading.Event()

    def use_both():
        while not stop.is_set():
            for module, result in zip((net, other), expected, strict=True):
                try:
                    torch.testing.assert_close(module(X), result, rtol=0, atol=1e-12)
                except Exception as error:
                    failures.append(error)
                    return

    thread = threading.Thread(target=use_both)
    thread.start()
    for _ in range(10):
        plan_of(net)
    stop.set()
    thread.join()
    assert not failures


def test_subclasses_of_networks_and_of_layers():
    class Norm(nn.InstanceNorm2d):
        """Nothing of a call is changed."""

    class Loud(nn.InstanceNorm2d):
        def forward(self, x):
            return super().forward(x) * 3

    class Twice(models.ResnetGenerator):
        def forward(self, x):
            return super().forward(super().forward(x))

    for norm, fused in ((Norm, 10), (Loud, 8)):
        torch.manual_seed(0)
        net = Twice(3, 3, 4, n_blocks=0).double()
        net.model[2] = norm(4)
        expected = run(copy.deepcopy(net), X)
        assert explain(accelerate(net)).norms == (fused, 10)
        assert_same(run(net, X), expected)


@pytest.mark.parametrize("function", [accelerate, restore, explain])
def test_what_is_no_module_is_refused(function):
    with pytest.raises(
        TypeError, match=f"{function.__name__}: net must be a torch.nn.Module, got int"
    ):
        function(3)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="memory_format must be one of channels_last, preserve"):
        accelerate(network(), memory_format="nhwc")
    with pytest.raises(ValueError, match="dead_bias_grad must be one of none, zero"):
        accelerate(network(), dead_bias_grad=True)
