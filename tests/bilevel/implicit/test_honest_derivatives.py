"""Derivatives that used to be wrong in silence: each is right now, or an error in a sentence."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel.report import BilevelError, DerivativeError, UndeclaredTensorError


def quartic(u: Tensor, p: Tensor) -> Tensor:
    return ((u - p) ** 2 + (u - p) ** 4 + u**4).sum()


def value(p: float) -> Tensor:
    return torch.tensor(p, requires_grad=True)


def test_a_loop_variable_that_the_energy_closes_over() -> None:
    stiffness = torch.ones(4, requires_grad=True)
    total = torch.zeros(())
    for load in (1.0, 2.0, 3.0):
        found = bilevel.argmin(
            lambda u, k: 0.5 * (k * torch.diff(u, prepend=torch.zeros(1)) ** 2).sum() - load * u[-1],  # noqa: B023
            torch.zeros(4),
            stiffness,
        )
        total = total + found.u.square().sum()
    with pytest.raises(BilevelError, match="the problem has changed since it was solved"):
        total.backward()


def test_a_tensor_changed_in_place_and_a_random_energy() -> None:
    target, p = torch.tensor([1.0, 2.0]), value(1.0)
    found = bilevel.argmin(lambda u, k: (k * (u - target) ** 2).sum() + (u**2).sum(), torch.zeros(2), p)
    target.mul_(2.0)
    with pytest.raises(BilevelError, match="changed since it was solved"):
        found.u.sum().backward()


@pytest.mark.parametrize(
    "energy",
    [
        lambda u, p: ((u - p) ** 2).sum() + float(p.detach()) * (u**2).sum(),
        lambda u, p: ((u - p) ** 2).sum() + p.detach() * (u**2).sum(),
        lambda u, p: ((u - p) ** 2).sum() + p.data * (u**2).sum(),
    ],
)
def test_what_leaves_the_graph_is_an_error(energy) -> None:
    p = value(1.5)
    found = bilevel.argmin(energy, torch.zeros(2), p)
    with pytest.raises(DerivativeError, match="leaves PyTorch's graph"):
        found.u.sum().backward()


def test_a_kink_at_the_solution_is_noted() -> None:
    p = value(0.0)
    found = bilevel.argmin(
        lambda u, q: ((u - q) ** 2).sum() + 10.0 * u.clamp(max=0.0).square().sum(), torch.full((1,), 0.5), p
    )
    found.u.sum().backward()
    assert any("kink" in note for note in found.report.notes)


def test_a_minimum_in_a_kink_of_the_energy_has_no_gradient_by_this_rule() -> None:
    """The state follows q, du/dq = 1; autograd, for which |.| has slope 0 at 0, would say 0."""
    found = bilevel.argmin(lambda u, q: ((u - q).abs() + 0.5 * (u - 1.0) ** 2).sum(), torch.zeros(1), value(1.0))
    with pytest.raises(DerivativeError, match="the energy has a kink there"):
        found.u.sum().backward()


def test_an_infinite_cotangent_is_an_error() -> None:
    found = bilevel.argmin(quartic, torch.zeros(2), value(1.5))
    with pytest.raises(BilevelError, match="NaN or infinite"):
        found.u.backward(torch.full((2,), torch.inf))


@pytest.mark.parametrize("power", [4, 6])
def test_degenerate_minima_have_their_gradient(power: int) -> None:
    q = value(1.0)
    found = bilevel.argmin(lambda u, p: ((u - p) ** power).sum(), torch.zeros(1), q)
    found.u.sum().backward()
    assert float(q.grad) == pytest.approx(1.0, rel=1e-10)
    assert any("degenerate" in note for note in found.report.notes)


def test_a_double_root_has_its_gradient() -> None:
    q = value(1.0)
    bilevel.root(lambda u, p: (u - p) ** 2, torch.zeros(1), q).u.sum().backward()
    assert float(q.grad) == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize("given", [2.0, 2, torch.tensor(2.0)])
def test_numbers_are_parameters_too(given: object) -> None:
    def outer(p: dict[str, Tensor]) -> Tensor:
        return bilevel.argmin(lambda u, a: quartic(u, a["a"]), torch.zeros(2), p).u.square().sum()

    with torch.no_grad():
        found = bilevel.gradient(outer, {"a": given})
    step = 1e-5
    expected = (outer({"a": torch.tensor(2.0 + step)}) - outer({"a": torch.tensor(2.0 - step)})) / (2 * step)
    assert float(found.gradient["a"]) == pytest.approx(float(expected), rel=1e-7)


def test_an_outer_function_without_derivative_is_an_error() -> None:
    with pytest.raises(BilevelError, match="no derivative in any"):
        bilevel.gradient(lambda p: torch.tensor(float(p["a"].detach())), {"a": 2.0})


def test_an_undeclared_tensor_away_from_the_start() -> None:
    hidden, p = value(3.0), value(2.0)

    def energy(u: Tensor, q: Tensor) -> Tensor:
        far = torch.where(u.detach() > 1.0, (u - hidden) ** 2, (u - 3.0) ** 2)
        return ((u - q) ** 2).sum() + (far if bool((u.detach() > 1.0).all()) else (u - 3.0) ** 2).sum()

    with pytest.raises(UndeclaredTensorError):
        bilevel.argmin(energy, torch.zeros(1), p)


def model_with_a_constant(k: Tensor) -> Tensor:
    load = torch.linspace(0.1, 1.0, 5)

    def energy(u: Tensor, p: Tensor) -> Tensor:
        strain = torch.diff(u, prepend=torch.zeros(1))
        return 0.5 * (p * strain**2).sum() + (u**4).sum() / 4 - (load * u).sum()

    return bilevel.argmin(energy, torch.zeros(5), k).u


def test_a_constant_made_inside_the_differentiated_function() -> None:
    k, step = torch.tensor(2.0), 1e-4
    expected = (model_with_a_constant(k + step) - model_with_a_constant(k - step)) / (2 * step)
    for jacobian in (torch.func.jacfwd, torch.func.jacrev):
        torch.testing.assert_close(jacobian(model_with_a_constant)(k), expected, rtol=1e-6, atol=1e-9)
    middle = model_with_a_constant(k)
    second = (model_with_a_constant(k + step) - 2 * middle + model_with_a_constant(k - step)) / step**2
    curvature = torch.func.hessian(lambda x: model_with_a_constant(x).sum())(k)
    assert float(curvature) == pytest.approx(float(second.sum()), rel=1e-4)


def test_a_parameter_without_influence_under_a_second_transform() -> None:
    def cube(a: Tensor) -> Tensor:
        found = bilevel.argmin(lambda u, p: quartic(u, p["a"]), torch.zeros(2), {"a": a, "b": torch.tensor(1.0)})
        return (found.u**3).sum()

    def slope(a: Tensor) -> Tensor:
        return torch.func.vjp(cube, a)[1](torch.tensor(1.0))[0]

    a, step = torch.tensor([0.5, 0.7]), 1e-5
    (found,) = torch.func.vjp(slope, a)[1](torch.ones(2))
    unit = torch.eye(2) * step
    expected = torch.stack([((slope(a + e) - slope(a - e)) / (2 * step)).sum() for e in unit])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_a_parameter_without_any_influence_has_gradient_zero() -> None:
    p = value(2.0)
    bilevel.argmin(lambda u, q: ((u - 1.0) ** 2).sum(), torch.zeros(2), p).u.sum().backward()
    assert float(p.grad) == 0.0


class Spring(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rest = torch.nn.Parameter(torch.tensor(2.0))
        self.layer = bilevel.ArgMin(quartic)

    def forward(self) -> Tensor:
        return self.layer(torch.zeros(2), self.rest)


def test_a_used_module_can_be_copied() -> None:
    model = Spring()
    model().sum().backward()
    torch.testing.assert_close(copy.deepcopy(model)(), model())


def gradient_at_two() -> float:
    p = value(2.0)
    bilevel.argmin(quartic, torch.zeros(2), p).u.sum().backward()
    return float(p.grad)


def test_saved_tensor_hooks() -> None:
    p = value(2.0)
    torch.utils.checkpoint.checkpoint(
        lambda q: bilevel.argmin(quartic, torch.zeros(2), q).u.sum(), p, use_reentrant=False
    ).backward()
    assert float(p.grad) == pytest.approx(gradient_at_two(), rel=1e-12)
    q = value(2.0)
    with torch.autograd.graph.save_on_cpu():
        found = bilevel.argmin(quartic, torch.zeros(2), q).u.sum()
    found.backward()
    assert float(q.grad) == pytest.approx(gradient_at_two(), rel=1e-12)


def test_forward_mode_by_dual_numbers() -> None:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(torch.tensor(2.0), torch.tensor(1.0))
        out = torch.autograd.forward_ad.unpack_dual(bilevel.argmin(quartic, torch.zeros(2), dual).u.sum())
    assert float(out.tangent) == pytest.approx(gradient_at_two(), rel=1e-10)
    p = torch.tensor([2.0, 1.0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: bilevel.argmin(quartic, torch.zeros(2), q).u, (p,), check_forward_ad=True)


def test_a_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shaped like the unknown, \(2, 3\), it returned \(3, 2\)"):
        bilevel.fixed_point(lambda u, p: (0.5 * u + p).reshape(3, 2), torch.zeros(2, 3), torch.tensor(1.0))


def test_large_unknowns_in_single_precision() -> None:
    n = 2600
    p = torch.ones(n, dtype=torch.float32, requires_grad=True)
    found = bilevel.argmin(lambda u, q: ((u - q) ** 2).sum() + torch.diff(u).square().sum(), torch.zeros_like(p), p)
    found.u.sum().backward()
    assert found.u.dtype == torch.float32
    torch.testing.assert_close(p.grad, torch.ones(n, dtype=torch.float32), rtol=1e-3, atol=1e-3)


def test_random_steps_of_a_chain_are_an_error() -> None:
    generator = torch.Generator().manual_seed(0)

    def step(old: Tensor, p: Tensor, load: Tensor, start: Tensor) -> Tensor:
        return old + p * load + 0.1 * torch.randn((), generator=generator)

    p = value(1.0)
    final = bilevel.chain(step, torch.tensor(0.0), p, torch.ones(6)).final
    with pytest.raises(BilevelError, match="came to another state when it was run again"):
        final.backward()


def test_an_undeclared_tensor_in_a_later_step_of_a_chain() -> None:
    hidden, p = value(2.0), value(1.0)

    def step(old: Tensor, q: Tensor, load: Tensor, start: Tensor) -> Tensor:
        return old + q * load + (hidden if bool(old.detach() > 1.5) else 0.0)

    final = bilevel.chain(step, torch.tensor(0.0), p, torch.ones(4)).final
    with pytest.raises(UndeclaredTensorError):
        final.backward()


def test_threads_that_share_a_mesh() -> None:
    import physics.discretisation as meshes
    from physics.flow import DarcyFlow

    mesh = meshes.rectangle(12, 12)
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
    found: list[Tensor] = []

    def work(seed: int) -> None:
        field = torch.exp(torch.sin(torch.arange(144.0) * seed))
        for _ in range(20):
            found.append(bilevel.argmin(flow, flow.start(), {"flow": {"hydraulic_conductivity": field}}).u)

    threads = [threading.Thread(target=work, args=(1,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    assert max(float((u - found[0]).abs().max()) for u in found) < 1e-12
