"""Chains: every derivative against the same loop in plain torch, memory, warm starts, and misuse."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev

from bilevel.implicit.chain import chain
from bilevel.implicit.solve import argmin, root
from bilevel.report import InputError, UndeclaredTensorError
from bilevel.torch_internals import pytree

STEPS, N = 6, 3


def plain_step(old, params, load, start):
    u = torch.tanh(params["A"] @ old["u"] + load * params["b"] + old["v"])
    return {"u": u, "v": old["v"] + 0.1 * u * u * params["c"]}


def inner_step(old, params, load, start):
    """A nonlinear backward Euler step with a history variable; `start` only starts the search."""

    def energy(u, p):
        return 0.5 * (u - p[0]).square().sum() + 0.1 * (u**4).sum() + 0.5 * u @ (p[1] @ u) - p[2] @ u

    matrix = params["A"] @ params["A"].mT
    u = argmin(energy, start["u"], (old["u"], matrix, load * params["b"] + old["v"])).u
    return {"u": u, "v": old["v"] + 0.1 * u * u * params["c"]}


def observe(new, params, load):
    return (new["u"] * params["b"]).sum() + load * new["v"][0]


def loop(step, state, params, loads):
    rows = []
    for load in loads:
        state = step(state, params, load, state)
        rows.append(observe(state, params, load))
    return torch.stack(rows), state["u"]


def chained(step, state, params, loads, segment=None):
    trajectory = chain(step, state, params, loads, observe=observe, segment=segment)
    return trajectory.observed, trajectory.final["u"]


@pytest.fixture
def inputs():
    params = {"A": 0.5 * torch.randn(N, N), "b": torch.randn(N), "c": torch.tensor(0.7)}
    return {"u": torch.randn(N), "v": torch.randn(N)}, params, torch.randn(STEPS)


def loss(run, step):
    def scalar(*inputs):
        observed, final = run(step, *inputs)
        return observed.square().sum() + final.prod()

    return scalar


def assert_same(found, expected, tolerance=1e-9):
    for a, b in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


DERIVATIVES = {
    "value": lambda run, step, x: run(step, *x),
    "gradient": lambda run, step, x: grad(loss(run, step), (0, 1, 2))(*x),
    "jacobian, reverse": lambda run, step, x: jacrev(lambda *y: run(step, *y), (0, 1, 2))(*x),
    "jacobian, forward": lambda run, step, x: jacfwd(lambda *y: run(step, *y), (0, 1, 2))(*x),
    "hessian": lambda run, step, x: hessian(loss(run, step), 1)(*x),
    "hessian, reverse over reverse": lambda run, step, x: jacrev(grad(loss(run, step), 1), 1)(*x),
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_functional_derivatives_match_the_plain_loop(derivative, inputs):
    f = DERIVATIVES[derivative]
    assert_same(f(chained, plain_step, inputs), f(loop, plain_step, inputs))


@pytest.mark.parametrize("segment", [1, 2, 4, STEPS, 100])
def test_gradient_does_not_depend_on_the_checkpoints(segment, inputs):
    def run(step, *x):
        return chained(step, *x, segment=segment)

    f = DERIVATIVES["gradient"]
    assert_same(f(run, plain_step, inputs), f(loop, plain_step, inputs))


@pytest.mark.parametrize("derivative", ["gradient", "jacobian, forward"])
def test_derivatives_through_inner_problems(derivative, inputs):
    f = DERIVATIVES[derivative]
    assert_same(f(chained, inner_step, inputs), f(loop, inner_step, inputs), tolerance=1e-7)


def test_autograd_with_double_backward_and_batched_cotangents(inputs):
    state, params, loads = inputs

    def derivatives(run):
        x = pytree.tree_map(lambda t: t.clone().requires_grad_(), params)
        leaves = list(x.values())
        first = torch.autograd.grad(loss(run, inner_step)(state, x, loads), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        observed = run(inner_step, state, x, loads)[0]
        rows = torch.vmap(lambda c: torch.autograd.grad(observed, leaves, c, retain_graph=True))(torch.eye(STEPS))
        same = torch.autograd.grad(observed, leaves, torch.eye(STEPS), is_grads_batched=True)
        assert_same(same, rows)
        return first, second, rows

    assert_same(derivatives(chained), derivatives(loop), tolerance=1e-6)


def test_gradcheck_through_a_residual():
    def step(old, params, load, start):
        return root(lambda u, p: u + p[1] * u**3 - p[0], start, (old + load, params)).u

    def observed(params, loads):
        return chain(step, torch.tensor([0.3]), params, loads).observed

    inputs = (torch.tensor([0.8], requires_grad=True), torch.linspace(0.1, 0.5, 5, requires_grad=True))
    assert torch.autograd.gradcheck(observed, inputs)


def test_reverse_sweep_starts_each_solve_from_its_answer(inputs):
    starts = []

    def step(old, params, load, start):
        starts.append(start["u"])
        return plain_step(old, params, load, start)

    state, params, loads = inputs
    b = params["b"].clone().requires_grad_()
    trajectory = chain(step, state, {**params, "b": b}, loads, segment=4)
    starts.clear()
    trajectory.observed["u"].sum().backward()
    answers = [*trajectory.observed["u"].detach()]
    met = sum(any(torch.equal(torch.as_tensor(s), a) for a in answers) for s in starts[-1:])
    assert met == 1
    assert torch.equal(torch.as_tensor(starts[-1]), answers[0])


def test_graph_keeps_no_step():
    """What a chain saves for its gradient grows with the square root of the steps, not with the steps."""

    def step(old, params, load, start):
        return torch.tanh(params * old + load)

    def saved(steps):
        kept = 0

        def pack(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        params = torch.tensor(0.9, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            chain(step, torch.zeros(1000), params, torch.ones(steps), observe=lambda new, p, load: new.sum())
        return kept

    few, many = saved(100), saved(10_000)
    assert many < 15 * few
    assert many < 10_000 * 1000 / 50


def test_constants_need_no_tensor_and_steps_need_no_loads():
    def step(old, params, load, start):
        return params["rate"] * old + params["shift"]

    trajectory = chain(step, torch.ones(2), {"rate": 0.5, "shift": 1}, steps=20)
    torch.testing.assert_close(trajectory.final, torch.full((2,), 2.0), rtol=1e-5, atol=0.0)
    assert trajectory.observed.shape == (20, 2)


@pytest.mark.parametrize(
    ("loads", "steps", "message"),
    [
        ({"a": torch.zeros(3), "b": torch.zeros(4)}, None, r"\[3, 4\]"),
        (None, None, "none"),
        (torch.zeros(3), 5, r"\[3, 5\]"),
        (torch.zeros(0), None, "at least one step"),
    ],
)
def test_loads_that_do_not_fit(loads, steps, message):
    with pytest.raises(InputError, match=message):
        chain(lambda old, p, load, start: old, torch.ones(1), None, loads, steps=steps)


def test_state_of_another_structure_is_refused():
    with pytest.raises(TypeError, match="step 0"):
        chain(lambda old, p, load, start: (old, old), torch.ones(1), steps=2)
    with pytest.raises(InputError, match="floating"):
        chain(lambda old, p, load, start: old, torch.ones(1, dtype=torch.int64), steps=2)


def test_a_state_that_does_not_move():
    weight = torch.tensor(2.0, requires_grad=True)
    state = {"u": torch.ones(2), "fixed": torch.ones(2, requires_grad=True)}
    final = chain(lambda old, p, load, start: {**old, "u": p * old["u"] + old["fixed"]}, state, weight, steps=3).final
    final["u"].sum().backward()
    assert float(weight.grad) == pytest.approx(2.0 * (3.0 * 4.0 + 2.0 * 2.0 + 1.0))
    torch.testing.assert_close(state["fixed"].grad, torch.full((2,), 7.0))


def test_undeclared_tensor_is_refused():
    hidden = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(UndeclaredTensorError):
        chain(lambda old, p, load, start: hidden * old, torch.ones(1), steps=3)
