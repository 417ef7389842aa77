"""Exact derivatives through every layer, solver and adjoint that claims exactness."""

from __future__ import annotations

import pytest
import torch
from problems import (
    chain_energy,
    chain_misfit,
    chain_params,
    contraction,
    contraction_params,
    skew_params,
    skew_residual,
)

import bilevel
from bilevel import (
    LBFGS,
    Anderson,
    BarzilaiBorwein,
    Constant,
    GradientDescent,
    Newton,
    Picard,
    Tolerance,
    TrustRegion,
    Wolfe,
)

TIGHT = Tolerance(relative=1e-13)


def energy_loss(solver):
    return lambda p: chain_misfit(bilevel.argmin(chain_energy, torch.zeros_like(p["load"]), p, solver=solver).u)


def short_chain_params():
    """First-order solvers take hundreds of iterations: three nodes are enough for them."""
    return chain_params(3)


def root_loss(p):
    u = bilevel.root(skew_residual, torch.zeros(4), p, solver=Newton(tolerance=TIGHT)).u
    return (u**2).sum() + u[0] * u[1]


def fixed_point_loss(solver):
    return lambda p: chain_misfit(bilevel.fixed_point(contraction, torch.zeros(5), p, solver=solver).u)


LAYERS = {
    "argmin-newton-armijo": (energy_loss(Newton(tolerance=TIGHT)), chain_params),
    "argmin-newton-wolfe": (energy_loss(Newton(step=Wolfe(), tolerance=TIGHT)), chain_params),
    "argmin-newton-trust-region": (energy_loss(Newton(step=TrustRegion(), tolerance=TIGHT)), chain_params),
    "argmin-newton-constant": (energy_loss(Newton(step=Constant(1.0), tolerance=TIGHT)), chain_params),
    "argmin-lbfgs": (energy_loss(LBFGS(tolerance=TIGHT)), chain_params),
    "argmin-gradient-bb": (energy_loss(GradientDescent(step=BarzilaiBorwein(), tolerance=TIGHT)), short_chain_params),
    "argmin-gradient-constant": (
        energy_loss(GradientDescent(step=Constant(0.08), tolerance=TIGHT)),
        short_chain_params,
    ),
    "root-newton": (root_loss, skew_params),
    "fixed-point-anderson": (fixed_point_loss(Anderson(tolerance=TIGHT)), contraction_params),
    "fixed-point-picard": (fixed_point_loss(Picard(tolerance=TIGHT)), contraction_params),
}


LONG = {"argmin-gradient-constant"}
every_layer = pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in LAYERS])


@every_layer
def test_gradient_passes_taylor_test_in_all_parameters_together(name):
    loss, params = LAYERS[name]
    check = bilevel.check_gradient(loss, params(), verbose=False)
    assert check.order >= 1.95, check
    assert check.best <= 1e-6, check


@every_layer
def test_hessian_passes_taylor_test(name):
    loss, params = LAYERS[name]
    check = bilevel.check_hessian(loss, params(), step=3e-2, verbose=False)
    assert check.order >= 2.9, check
    assert check.best <= 1e-6, check


@pytest.mark.parametrize("kind", ["stiffness", "hardening", "load", "coordinates", "boundary"])
def test_gradient_of_each_kind_of_parameter_alone(kind):
    params = chain_params()

    def loss(p):
        return energy_loss(Newton(tolerance=TIGHT))(params | p)

    for check in (bilevel.check_gradient, bilevel.check_hessian):
        found = check(loss, {kind: params[kind]}, verbose=False)
        assert found.ok, found


def test_solvers_agree_on_state_and_gradient():
    grads = []
    for name, (loss, _) in LAYERS.items():
        if not name.startswith("argmin"):
            continue
        p = {k: v.requires_grad_() for k, v in short_chain_params().items()}
        grads.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(p), list(p.values()))]))
    for g in grads[1:]:
        torch.testing.assert_close(g, grads[0], rtol=1e-8, atol=1e-10)


def state_of(p):
    return bilevel.argmin(chain_energy, torch.zeros(6), p, solver=Newton(tolerance=TIGHT)).u


def test_jacobians_forward_reverse_and_batched_agree():
    params = chain_params()
    reverse = torch.func.jacrev(state_of)(params)
    forward = torch.func.jacfwd(state_of)(params)
    for key in params:
        torch.testing.assert_close(reverse[key], forward[key], rtol=1e-10, atol=1e-12)
    leaves = {k: v.clone().requires_grad_() for k, v in params.items()}
    rows = torch.autograd.grad(
        state_of(leaves), list(leaves.values()), grad_outputs=torch.eye(6), is_grads_batched=True
    )
    for row, key in zip(rows, leaves, strict=True):
        torch.testing.assert_close(row, reverse[key], rtol=1e-10, atol=1e-12)


def test_jvp_is_the_transpose_of_the_vjp():
    params = chain_params()
    tangent = {k: torch.randn_like(v) for k, v in params.items()}
    cotangent = torch.randn(6)
    moved = torch.func.jvp(state_of, (params,), (tangent,))[1]
    pulled = torch.func.vjp(state_of, params)[1](cotangent)[0]
    inner = sum((pulled[k] * tangent[k]).sum() for k in params)
    torch.testing.assert_close(moved @ cotangent, inner, rtol=1e-11, atol=1e-13)


def test_forward_over_reverse_equals_double_backward():
    params = chain_params()

    def loss(hardening):
        return chain_misfit(state_of(params | {"hardening": hardening}))

    double = torch.func.grad(torch.func.grad(loss))(params["hardening"])
    mixed = torch.func.jvp(torch.func.grad(loss), (params["hardening"],), (torch.tensor(1.0),))[1]
    leaf = params["hardening"].clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    (plain,) = torch.autograd.grad(first, leaf)
    torch.testing.assert_close(double, plain, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mixed, plain, rtol=1e-9, atol=1e-12)


def test_closed_form_of_a_quadratic_to_third_order():
    """u* = b / a: derivatives of any order are known."""

    def energy(u, p):
        return 0.5 * p["a"] * u**2 - p["b"] * u

    a, b = torch.tensor(2.5, requires_grad=True), torch.tensor(1.5, requires_grad=True)
    u = bilevel.argmin(energy, torch.tensor(0.3), {"a": a, "b": b}).u
    assert u.shape == ()
    (da,) = torch.autograd.grad(u, a, create_graph=True)
    (daa,) = torch.autograd.grad(da, a, create_graph=True)
    (daaa,) = torch.autograd.grad(daa, a)
    expected = [b / a, -b / a**2, 2 * b / a**3, -6 * b / a**4]
    for found, right in zip([u, da, daa, daaa], expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=0)


def test_a_batch_of_small_problems_keeps_samples_apart():
    def energy(u, p):
        return (0.25 * u**4 + 0.5 * p["k"].unsqueeze(-1) * u**2 - p["f"] * u).sum(-1)

    problem = bilevel.Energy(energy, batch_dims=1)
    k, f = 0.5 + torch.rand(7), torch.randn(7, 3)
    k.requires_grad_()
    solution = bilevel.argmin(problem, torch.zeros(7, 3), {"k": k, "f": f})
    torch.testing.assert_close(solution.u**3 + k.unsqueeze(-1) * solution.u, f, rtol=1e-9, atol=1e-9)
    weights = torch.randn(7, 3)
    (found,) = torch.autograd.grad((weights * solution.u).sum(), k)
    right = -(weights * solution.u / (3 * solution.u**2 + k.unsqueeze(-1))).sum(-1)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)
    assert len(solution.report.status) == 7


def test_a_batch_reports_the_sample_that_has_no_solution():
    def residual(u, p):
        return u**2 + p.unsqueeze(-1)

    problem = bilevel.Residual(residual, batch_dims=1)
    with pytest.raises(bilevel.ConvergenceError, match="1 of 3 samples failed, first is sample 1"):
        bilevel.root(problem, torch.ones(3, 1), torch.tensor([-1.0, 1.0, -4.0]))
    solution = bilevel.root(problem, torch.ones(3, 1), torch.tensor([-1.0, 1.0, -4.0]), on_fail="ignore")
    assert [s.ok for s in solution.report.status] == [True, False, True]
    torch.testing.assert_close(solution.u[[0, 2], 0], torch.tensor([1.0, 2.0]))


def test_modules_train_with_their_own_parameters():
    class Spring(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stiffness = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, u, load):
            return 0.5 * self.stiffness * (u**2).sum() - (load * u).sum()

    layer = bilevel.ArgMin(Spring())
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5)
    load = torch.tensor([1.0, 2.0])
    for _ in range(200):
        optimiser.zero_grad()
        ((layer(torch.zeros(2), load) - load / 3.0) ** 2).sum().backward()
        optimiser.step()
    torch.testing.assert_close(layer.problem.stiffness.detach(), torch.tensor(3.0), rtol=1e-3, atol=0)
    assert layer.solution.gradient.exact


def test_shapes_of_the_unknown_are_the_users():
    def energy(u, p):
        assert u.shape == (2, 3)
        return ((u - p) ** 2).sum()

    target = torch.randn(2, 3, requires_grad=True)
    u = bilevel.argmin(energy, torch.zeros(2, 3), target).u
    torch.testing.assert_close(u, target)
    (grad,) = torch.autograd.grad(u[1, 2], target)
    expected = torch.zeros(2, 3)
    expected[1, 2] = 1.0
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)


def test_layers_may_be_chained_and_nested_in_torch_func():
    def second(p):
        first = bilevel.argmin(
            lambda u, q: 0.5 * (u**2).sum() + 0.25 * (u**4).sum() - (q * u).sum(), torch.zeros(2), p
        ).u
        return bilevel.root(lambda v, q: v + v**3 - q, torch.zeros(2), first).u.sum()

    check = bilevel.check_gradient(second, torch.tensor([0.4, -0.9]), verbose=False)
    assert check.ok, check
    check = bilevel.check_hessian(second, torch.tensor([0.4, -0.9]), verbose=False)
    assert check.ok, check


def test_vmap_over_parameters_says_what_to_do():
    with pytest.raises(bilevel.BilevelError, match="batch_dims=1"):
        torch.vmap(lambda p: bilevel.argmin(lambda u, q: ((u - q) ** 2).sum(), torch.zeros(2), p).u)(torch.ones(3, 2))


def test_a_residual_that_does_not_bend_has_a_constant_jacobian():
    solution = bilevel.root(lambda u, p: 1.0 * u - p, torch.zeros(3), torch.ones(3, requires_grad=True))
    torch.testing.assert_close(solution.u.detach(), torch.ones(3))
    with pytest.raises(bilevel.BilevelError):
        bilevel.root(lambda u, p: 0.0 * u - p, torch.zeros(3), torch.ones(3))
