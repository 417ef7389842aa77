"""The local energies' own derivatives in their parameters against automatic differentiation of the whole residual."""

import pytest
import torch

import bilevel
from bilevel.problem import Problem
from bilevel.torch_internals import pytree
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import Shape, box, rectangle
from physics.discretisation.operator import local_state
from physics.local.assembly import component_pairs
from physics.local.density import Cells, Density
from physics.solids.loads import BodyForce, Traction
from physics.solids.solid import Solid


def block():
    mesh = box(3, 3, 3)
    supports = [mesh.fixed("left"), mesh.fixed("right", value=0.1)]
    solid = Solid(mesh, NeoHookean(), constraints=supports, loads=[Traction("pull", "top")])
    young = 1.0 + torch.rand(len(mesh.cells))
    params = {
        "material": {"youngs_modulus": young, "poissons_ratio": torch.tensor(0.3)},
        "pull": torch.tensor([0.0, 0.0, 0.01]),
    }
    return solid, params


def averaged():
    mesh = rectangle(4, 3, (2.0, 1.0))
    solid = Solid(
        mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")], [BodyForce("weight")], mean_dilatation=True
    )
    params = {
        "material": {"mu": 1.0 + torch.rand(len(mesh.cells)), "lame_lambda": torch.tensor(30.0)},
        "weight": torch.tensor([0.0, -0.1]),
        "coordinates": mesh.coordinates.clone(),
    }
    return solid, params


def small(problem):
    return 0.05 * torch.randn(problem.n, generator=torch.Generator().manual_seed(3))


CASES = {"block": block, "mean dilatation, coordinates": averaged}


def tensors_of(params):
    return pytree.tree_leaves(params)


@pytest.mark.parametrize("name", CASES)
def test_parameter_vjp_is_the_derivative_of_the_work(name):
    problem, params = CASES[name]()
    u, state = small(problem).requires_grad_(), torch.randn(problem.n)
    wanted = [u, *(leaf.requires_grad_() for leaf in tensors_of(params))]
    mine = problem.parameter_vjp(u, params, state, wanted)
    expected = Problem.parameter_vjp(problem, u, params, state, wanted)
    for found, reference in zip(mine, expected, strict=True):
        torch.testing.assert_close(found, reference, rtol=1e-11, atol=1e-13)


def test_parameter_vjp_leaves_alone_what_is_not_wanted():
    problem, params = block()
    u = small(problem)
    poisson = params["material"]["poissons_ratio"].requires_grad_()
    (found,) = problem.parameter_vjp(u, params, torch.ones(problem.n), [poisson])
    (expected,) = Problem.parameter_vjp(problem, u, params, torch.ones(problem.n), [poisson])
    assert float(found) == pytest.approx(float(expected), rel=1e-11)


def test_parameter_jvp_in_many_directions_is_the_jvp_of_the_residual():
    problem, params = block()
    u = small(problem)
    young, poisson = params["material"]["youngs_modulus"], params["material"]["poissons_ratio"]
    by_young, by_poisson = torch.randn(6, len(young)), torch.randn(6)
    moved = [
        {"material": {"youngs_modulus": a, "poissons_ratio": b}, "pull": None}
        for a, b in zip(by_young, by_poisson, strict=True)
    ]

    def residual(a, b):
        return problem.residual(u, {**params, "material": {"youngs_modulus": a, "poissons_ratio": b}})

    expected = torch.stack(
        [torch.func.jvp(residual, (young, poisson), d)[1] for d in zip(by_young, by_poisson, strict=True)]
    )
    torch.testing.assert_close(problem.parameter_jvp(u, params, moved), expected, rtol=1e-11, atol=1e-13)


def test_parameter_jvp_declines_directions_that_are_not_fields_of_cells():
    problem, params = block()
    moved = [{"material": {"youngs_modulus": None, "poissons_ratio": None}, "pull": torch.ones(3)}] * 5
    assert problem.parameter_jvp(small(problem), params, moved) is None


@pytest.mark.parametrize("transform", [torch.func.jacfwd, torch.func.jacrev], ids=["forward", "reverse"])
def test_the_jacobian_in_many_parameters_agrees_with_finite_differences(transform):
    problem, params = block()
    groups = torch.arange(len(params["material"]["youngs_modulus"])) % 5

    def state(scales):
        material = {**params["material"], "youngs_modulus": params["material"]["youngs_modulus"] * scales[groups]}
        return bilevel.argmin(problem, problem.start(), {**params, "material": material}).u

    jacobian = transform(state)(torch.ones(5))
    step = 1e-6
    for k in range(5):
        change = step * torch.eye(5)[k]
        expected = (state(1 + change) - state(1 - change)) / (2 * step)
        assert float((jacobian[:, k] - expected).norm() / expected.norm()) < 1e-7


def test_mixed_second_derivatives_pass_through_many_directions():
    problem, params = block()
    groups = torch.arange(len(params["material"]["youngs_modulus"])) % 5

    def loss(scales):
        material = {**params["material"], "youngs_modulus": params["material"]["youngs_modulus"] * scales[groups]}
        return bilevel.argmin(problem, problem.start(), {**params, "material": material}).u.square().sum()

    at = torch.tensor([1.0, 1.2, 0.9, 1.1, 0.8])
    reverse_over_forward = torch.func.jacrev(torch.func.jacfwd(loss))(at)
    reverse = torch.autograd.functional.hessian(loss, at)
    torch.testing.assert_close(reverse_over_forward, reverse, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("shape", "order"), [(Shape.HEXAHEDRON, 1), (Shape.TETRAHEDRON, 2)])
def test_element_matrices_contracted_by_hand_are_those_of_the_moduli(shape, order):
    mesh = box(2, 2, 2, shape=shape, order=order)
    solid = Solid(mesh, NeoHookean(), constraints=[mesh.fixed("left")])
    term, density = solid.material, NeoHookean()
    local = 0.01 * torch.randn(*term.operator.cells.shape, 3)
    matrix, weights = term.operator.evaluate(None, slice(None))
    params = {"mu": 1.0 + torch.rand(len(matrix), 1), "lame_lambda": torch.tensor(2.0)}
    mine = term.stiffness(local, matrix, weights, params)
    x = term.measure.state(local_state(local, matrix))
    cells = Cells(term.measure, weights, matrix, component_pairs(3))
    expected = Density.element_matrices(density, x, params, cells)
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)
    energy, stress = density.energy_and_stress(x, params)
    torch.testing.assert_close(energy, density.energy(x, params), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(stress, density.stress(x, params), rtol=1e-12, atol=1e-14)
