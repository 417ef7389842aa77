"""First guesses on the same problem with its nodes numbered in another order: the same systems, whatever a network says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bilevel.acceleration.family import Family
from bilevel.acceleration.learned_guess import predict
from bilevel.acceleration.networks.cell_network import CellNetwork
from bilevel.solvers.cellwise.problem import CellwiseProblem, GuessedProblem
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.discretisation.operator import nodal_operator
from physics.families.bars import Bars
from physics.families.denoised_volumes import DenoisedVolumes
from physics.families.forchheimer import ForchheimerFlow
from physics.families.large_strain import LargeStrain
from physics.families.p_laplacian import PLaplacianFlow
from physics.families.power_law import PowerLawFlow
from physics.families.twisted_bars import TwistedBars
from physics.flow.cellwise import FlowCells
from physics.flow.network import FlowNetwork
from physics.flow.p_laplacian import PLaplacian
from physics.local.energy import LocalEnergy
from physics.local.total_variation.cells import VariationCells
from physics.local.total_variation.systems import VariationSystems
from physics.solids.cellwise.cells import SolidCells
from physics.solids.cellwise.nearly_incompressible import NearlyIncompressibleSolid

Field = Callable[[Tensor], Tensor]
"""The unknowns (n,) as a nodal field (nodes, components)."""


def order_of(nodes: int) -> tuple[Tensor, Tensor]:
    """The node that comes in each place, and the place of each node."""
    order = torch.randperm(nodes, generator=torch.Generator().manual_seed(7))
    return order, torch.argsort(order)


def network_of(cellwise: GuessedProblem, start: Tensor) -> CellNetwork:
    """A network that says something at random."""
    torch.manual_seed(0)
    features = cellwise.features(cellwise.begin(start)).shape[1]
    network = CellNetwork(features, len(cellwise.outputs), cellwise.incidence.features.shape[1], hidden=8, hops=2)
    torch.nn.init.normal_(network.decode[-1].weight, std=0.05)
    return network


def require_same(
    one: tuple[CellwiseProblem, Tensor, Field], other: tuple[CellwiseProblem, Tensor, Field], order: Tensor
) -> None:
    network = network_of(*one[:2]) if isinstance(one[0], GuessedProblem) else None
    fields = []
    for cellwise, start, field in (one, other):
        guess = cellwise.begin(start)
        for _ in range(2):
            said = None
            if network is not None and isinstance(cellwise, GuessedProblem):
                said = predict(network, cellwise, guess)
            guess = cellwise.solve(guess, said)
        fields.append(field(guess.u))
    difference = torch.linalg.vector_norm(fields[1] - fields[0][order]) / torch.linalg.vector_norm(fields[0])
    assert float(difference) < 1e-6


@pytest.mark.parametrize("family", [PowerLawFlow(), ForchheimerFlow()], ids=lambda family: family.name)
@torch.no_grad()
def test_pores_in_another_order(family: Family) -> None:
    instance = family.instance(150, 3)
    problem, params, cellwise = instance.problem, instance.params, instance.cellwise
    assert isinstance(problem, FlowNetwork)
    assert isinstance(cellwise, FlowCells)
    order, place = order_of(problem.graph.nodes)
    free = torch.zeros(problem.graph.nodes, dtype=torch.bool)
    free[problem.constraints.free] = True
    held = torch.nonzero(~free)[:, 0]
    head = problem.expand(instance.start, params)[held]
    graph = Graph(problem.graph.nodes, place[problem.graph.edges])
    renumbered = FlowNetwork(graph, problem.law, (Dirichlet("sides", place[held], value=head),))
    moved: dict[str, Any] = {"flow": params["flow"], "inflow": params["inflow"][order]}
    split = FlowCells(renumbered, moved, cellwise.law.typical)
    one = cellwise, instance.start, lambda u: cellwise.heads(u)[:, None]
    require_same(one, (split, split.linear_start(), lambda u: split.heads(u)[:, None]), order)


@torch.no_grad()
def test_triangles_in_another_order() -> None:
    instance = PLaplacianFlow().instance(150, 3)
    problem, params, cellwise = instance.problem, instance.params, instance.cellwise
    assert isinstance(problem, PLaplacian)
    assert isinstance(cellwise, FlowCells)
    mesh = problem.mesh
    order, place = order_of(len(mesh.coordinates))
    other = replace(mesh, coordinates=mesh.coordinates[order], cells=place[mesh.cells])
    held = [other.fixed("left"), other.fixed("right", value=1.0)]
    renumbered = PLaplacian(other, problem.law.exponent, problem.law.threshold, held)
    moved: dict[str, Any] = {"flow": params["flow"], "wells": params["wells"][order]}
    split = FlowCells(renumbered, moved, 1.0)
    one = cellwise, instance.start, lambda u: cellwise.heads(u)[:, None]
    require_same(one, (split, split.linear_start(), lambda u: split.heads(u)[:, None]), order)


@pytest.mark.parametrize("family", [LargeStrain(), TwistedBars()], ids=lambda family: family.name)
@torch.no_grad()
def test_rubber_bars_in_another_order(family: Bars) -> None:
    instance = family.instance(120, 3)
    problem, params, cellwise = instance.problem, instance.params, instance.cellwise
    assert isinstance(problem, NearlyIncompressibleSolid)
    assert isinstance(cellwise, SolidCells)
    mesh = problem.mesh
    order, place = order_of(len(mesh.coordinates))
    other = replace(mesh, coordinates=mesh.coordinates[order], cells=place[mesh.cells])
    solid = NearlyIncompressibleSolid(other, problem.material.law, [other.fixed("left"), other.fixed("right")])
    # The end's nodes are listed by their numbers, and so are the displacements that they are given.
    known = {int(node): k for k, node in enumerate(mesh.nodes_on("right"))}
    rows = [known[int(order[node])] for node in other.nodes_on("right")]
    moved = {**params, "boundary": {"right": params["boundary"]["right"][rows]}}
    one = cellwise, instance.start, lambda u: problem.expand(u, params)
    two = SolidCells(solid.by_cells, moved, cellwise.motion), solid.start(), lambda u: solid.expand(u, moved)
    require_same(one, two, order)


@torch.no_grad()
def test_volumes_in_another_order() -> None:
    instance = DenoisedVolumes().instance(125, 4)
    problem, params, cellwise = instance.problem, instance.params, instance.cellwise
    assert isinstance(problem, LocalEnergy)
    assert isinstance(cellwise, VariationCells)
    variation, data = problem.terms
    mesh = variation.operator
    order, place = order_of(problem.n)
    operator = replace(mesh, coordinates=mesh.coordinates[order], cells=place[mesh.cells])
    terms = [replace(variation, operator=operator), replace(data, operator=nodal_operator(torch.arange(problem.n)))]
    renumbered = LocalEnergy(terms, problem.n)
    moved = {**params, "data": {name: value[order] for name, value in params["data"].items()}}
    other = VariationCells(VariationSystems.of(renumbered, moved))
    one = cellwise, instance.start, lambda u: u[:, None]
    require_same(one, (other, other.first(), lambda u: u[:, None]), order)
