"""Local energies: residual and tangent are derivatives of the value, for every kind of parameter and constraint."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacfwd, jacrev

import physics.discretisation as meshes
from bilevel.report import InputError
from bilevel.torch_internals import pytree
from physics.discretisation import Mesh, Shape
from physics.discretisation.constraints import Affine, Constraint, Dirichlet, Tie
from physics.discretisation.graph import Graph
from physics.discretisation.rigid_body_modes import constant_modes
from physics.local.density import FunctionDensity, LinearLoad, Measure
from physics.local.energy import LocalEnergy
from physics.local.term import Term


def diffusion(mesh: Mesh, constraints: list[Constraint], **options: object) -> LocalEnergy:
    def psi(gradient: Tensor, value: Tensor, params: dict[str, Tensor]) -> Tensor:
        return 0.5 * params["k"] * (1.0 + value**2) * (gradient * gradient).sum(-1)

    nodes = len(mesh.coordinates)
    terms = [
        Term("flow", mesh.operator(value=True), FunctionDensity(psi, with_value=True), Measure((mesh.dim + 1,))),
        Term("source", mesh.operator(gradient=False, value=True), LinearLoad(), Measure((1, 1))),
    ]
    return LocalEnergy(terms, nodes, 1, constraints, kernel=constant_modes(nodes), **options)  # type: ignore[arg-type]


def assert_consistent(energy: LocalEnergy, params: dict[str, object]) -> None:
    u = torch.randn(energy.n)
    residual = energy.residual(u, params)
    assert (grad(energy.value)(u, params) - residual).abs().max() < 1e-12 * residual.abs().max()
    hessian = jacfwd(energy.residual)(u, params)
    tangent = torch.from_numpy(energy.tangent(u, params).csr().toarray())
    assert (hessian - tangent).abs().max() < 1e-12 * hessian.abs().max()


def make(shape: Shape, order: int) -> Mesh:
    if shape in (Shape.TRIANGLE, Shape.QUADRILATERAL):
        return meshes.rectangle(3, 2, shape=shape, order=order)
    return meshes.box(2, 2, 1, shape=shape, order=order)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", list(Shape))
def test_residual_and_tangent_follow_from_the_value(shape: Shape, order: int) -> None:
    mesh = make(shape, order)
    energy = diffusion(mesh, [mesh.fixed("left", value=1.0)])
    cells, points = len(mesh.cells), energy.terms[0].operator.points
    for k in (torch.tensor(2.0), torch.rand(cells) + 1.0, torch.rand(cells, points) + 1.0):
        assert_consistent(energy, {"flow": {"k": k}, "source": torch.tensor([0.3])})


CONSTRAINTS = {
    "tie": lambda m: [m.fixed("left"), Tie("tie", m.nodes_on("top")[1:], m.nodes_on("bottom")[1:], jump=0.2)],
    "periodic": lambda m: [
        Dirichlet("pin", torch.tensor([0])),
        m.periodic("left", "right"),
        m.periodic("bottom", "top"),
    ],
    "affine": lambda m: [
        m.fixed("left"),
        Affine("mean", (11, 0), [(10, 0, 0.5), (9, 0, 0.25)], 0.3),
        Affine("chain", (10, 0), [(8, 0, 2.0), (0, 0, 1.0)]),
    ],
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_hold_and_keep_the_energy_consistent(name: str) -> None:
    mesh = meshes.rectangle(3, 2)
    energy = diffusion(mesh, CONSTRAINTS[name](mesh))
    params = {"flow": {"k": torch.rand(len(mesh.cells)) + 1.0}}
    assert_consistent(energy, params)
    full = energy.expand(torch.randn(energy.n), params)[:, 0]
    if name == "tie":
        gap = full[mesh.nodes_on("top")[1:]] - full[mesh.nodes_on("bottom")[1:]]
        assert (gap - 0.2).abs().max() < 1e-15
    if name == "periodic":
        corners = mesh.nodes_where(lambda x: ((x == 0) | (x == 1)).all(1))
        assert full[corners].abs().max() == 0.0
    if name == "affine":
        assert full[11] == pytest.approx(float(0.5 * full[10] + 0.25 * full[9] + 0.3))
        assert full[10] == pytest.approx(float(2.0 * full[8]))


def test_periodic_jump_gives_a_uniform_gradient() -> None:
    import bilevel

    mesh = meshes.rectangle(4, 3)
    pin = Dirichlet("pin", torch.tensor([0]))
    energy = diffusion(mesh, [pin, mesh.periodic("left", "right"), mesh.periodic("bottom", "top")])
    params = {"flow": {"k": torch.tensor(1.0)}, "boundary": {"right": torch.tensor(1e-3)}}
    # k (1 + h^2) is close to constant for so small a jump: h = 1e-3 x to first order
    solution = bilevel.argmin(energy, energy.start(), params)
    field = energy.expand(solution.u, params)[:, 0]
    assert (field - 1e-3 * mesh.coordinates[:, 0]).abs().max() < 1e-9


def test_residual_differentiates_in_fields_loads_boundary_values_and_coordinates() -> None:
    mesh = meshes.rectangle(3, 2, shape=Shape.TRIANGLE, order=2)
    energy = diffusion(mesh, [mesh.fixed("left")])
    params = {
        "flow": {"k": torch.rand(len(mesh.cells)) + 1.0},
        "source": torch.randn(len(mesh.cells), 1),
        "boundary": {"left": torch.randn(len(mesh.nodes_on("left")))},
        "coordinates": mesh.coordinates.clone(),
    }
    u = torch.randn(energy.n)
    forward = jacfwd(energy.residual, argnums=1)(u, params)
    reverse = jacrev(energy.residual, argnums=1)(u, params)
    flat, spec = pytree.tree_flatten(params)
    direction = [torch.randn_like(leaf) for leaf in flat]
    slopes = [pytree.tree_leaves(j) for j in (forward, reverse)]

    def at(step: float) -> Tensor:
        moved = [leaf + step * d for leaf, d in zip(flat, direction)]
        return energy.residual(u, pytree.tree_unflatten(moved, spec))

    difference = (at(1e-5) - at(-1e-5)) / 2e-5
    for leaves in slopes:
        total = sum(torch.tensordot(j, d, dims=d.dim()) for j, d in zip(leaves, direction))
        assert (total - difference).norm() < 1e-7 * difference.norm()


def test_an_element_that_moved_nodes_turn_inside_out_gives_nan_not_a_number() -> None:
    mesh = meshes.rectangle(2, 2)
    energy = diffusion(mesh, [mesh.fixed("left")])
    moved = mesh.coordinates.clone()
    moved[4] = torch.tensor([2.0, 2.0])
    value = energy.value(torch.ones(energy.n), {"flow": {"k": torch.tensor(1.0)}, "coordinates": moved})
    assert value.isnan()


def test_a_nonlinear_edge_law_on_a_graph_is_consistent() -> None:
    graph = Graph(5, torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]]))
    law = FunctionDensity(lambda d, p: p["c"] / 2.5 * (d[..., 0] ** 2 + 1e-3) ** 1.25)
    terms = [
        Term("pipes", graph.difference(), law, Measure((1,))),
        Term("demand", graph.values(), LinearLoad(), Measure((1, 1))),
    ]
    energy = LocalEnergy(terms, 5, 1, [Dirichlet("tank", torch.tensor([0]), value=2.0)], kernel=constant_modes(5))
    assert_consistent(energy, {"pipes": {"c": torch.rand(5) + 1.0}, "demand": torch.randn(5, 1)})


def test_graph_from_torch_geometric_takes_each_undirected_edge_once() -> None:
    from torch_geometric.data import Data

    both = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    graph = Graph.from_data(Data(edge_index=both, num_nodes=3))
    assert graph.edges.tolist() == [[0, 1], [1, 2]]
    assert graph.to_data().edge_index.tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize(("edges", "message"), [([[0, 3]], "names node 3"), ([[1, 1]], "joins node 1 to itself")])
def test_bad_graphs_are_refused(edges: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Graph(3, torch.tensor(edges))


def test_a_floating_field_must_be_declared_and_then_is_the_null_space() -> None:
    mesh = meshes.rectangle(2, 2)
    with pytest.raises(InputError, match=r"1 motion\(s\) cost no energy"):
        diffusion(mesh, [])
    null = diffusion(mesh, [], floating=True).structure.null_space
    assert null is not None
    assert (null.abs() - 1.0 / 3.0).abs().max() < 1e-14


def test_each_body_needs_its_own_support() -> None:
    graph = Graph(4, torch.tensor([[0, 1], [2, 3]]))
    law = FunctionDensity(lambda d, p: p["c"] * d[..., 0] ** 2)
    terms = [Term("pipes", graph.difference(), law, Measure((1,)))]
    pin = Dirichlet("pin", torch.tensor([0]))
    with pytest.raises(InputError, match=r"1 motion\(s\)"):
        LocalEnergy(terms, 4, 1, [pin], kernel=constant_modes(4))
    tied = LocalEnergy(terms, 4, 1, [pin, Tie("joint", torch.tensor([2]), torch.tensor([1]))], kernel=constant_modes(4))
    assert tied.structure.null_space is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"flow": {"k": torch.ones(5)}}, r"flow.k has shape \(5,\); expected \(\) shared, \(4,\) per cell"),
        ({"flow": {"k": torch.ones(())}, "sources": 1}, "'sources'"),
        ({"flow": {"k": torch.ones(())}, "boundary": {"lid": 1.0}}, "'lid'"),
        ({"flow": {"k": torch.ones(())}, "boundary": {"left": torch.ones(7)}}, "do not fit"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, object], message: str) -> None:
    mesh = meshes.rectangle(2, 2)
    energy = diffusion(mesh, [mesh.fixed("left")])
    with pytest.raises(InputError, match=message):
        energy.value(energy.start(), params)


def test_ties_in_a_circle_are_refused() -> None:
    mesh = meshes.rectangle(2, 2)
    one, two = torch.tensor([1]), torch.tensor([2])
    with pytest.raises(InputError, match="circle"):
        diffusion(mesh, [Tie("a", one, two), Tie("b", two, one)])
