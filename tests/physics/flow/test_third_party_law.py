"""A law of flow that somebody else wrote, in a package of its own: networks, meshes and first guesses take it as it is."""

import importlib
import sys

import pytest
import torch
from packages import write_package

import bilevel
from bilevel.acceleration.learned_guess import LearnedGuess
from bilevel.report import InputError
from bilevel.solvers import Newton, Tolerance
from physics.constitutive.flow import FlowLaw
from physics.constitutive.registry import find_law
from physics.discretisation import Shape, rectangle
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.flow import Diffusion, FlowNetwork
from physics.flow.cellwise import FlowCells

SOURCE = '''
"""Eyring's law of thermally activated flow in narrow gaps."""

from __future__ import annotations

from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.flow import FlowLaw
from physics.local.parameters import LawParameter, LawParameters


class Eyring(FlowLaw):
    """flux = k s asinh(drop / s) (Eyring 1936). params: conductance k > 0, activation s > 0."""

    parameters = LawParameters(LawParameter("k", "m2/d", lower=0.0), LawParameter("s", "m", lower=0.0))

    def potential(self, drop: Tensor, params: Params) -> Tensor:
        k, s = params["k"], params["s"]
        x = drop / s
        return k * s**2 * (x * x.asinh() - (1.0 + x**2).sqrt() + 1.0)
'''


@pytest.fixture
def eyring(tmp_path, monkeypatch):
    write_package(tmp_path, "their_flow", SOURCE, {"bilevel.laws": {"eyring": "their_flow:Eyring"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield find_law("eyring", FlowLaw)()
    sys.modules.pop("their_flow")


def test_it_takes_no_more_than_forty_lines():
    assert len(SOURCE.strip().splitlines()) <= 40


def test_pipes_in_series(eyring):
    """Both carry k s asinh(drop / s): drops s sinh(q / (k s)) add up to the whole."""
    graph = Graph(3, torch.tensor([[0, 1], [1, 2]]))
    ends = Dirichlet("ends", torch.tensor([0, 2]), value=torch.tensor([[4.0], [0.0]]))
    network = FlowNetwork(graph, eyring, [ends])
    k, s = torch.tensor([1.0, 0.5]), torch.tensor([0.7, 0.3])
    params = {"flow": {"k": k, "s": s}}
    flux = network.flux(bilevel.argmin(network, network.start() + 2.0, params).u, params)
    assert float(flux[0]) == pytest.approx(float(flux[1]), rel=1e-9)
    assert float((s * torch.sinh(flux / (k * s))).sum()) == pytest.approx(4.0, rel=1e-9)
    with pytest.raises(InputError, match="Eyring: s = -1 m must lie above 0"):
        bilevel.argmin(network, network.start(), {"flow": {"k": k, "s": torch.tensor(-1.0)}})


@pytest.mark.parametrize("shape", [Shape.TRIANGLE, Shape.QUADRILATERAL])
def test_a_uniform_gradient_on_a_mesh_carries_the_flux_of_the_law(eyring, shape):
    mesh = rectangle(4, 3, (2.0, 1.0), shape=shape)
    flow = Diffusion(mesh, [mesh.fixed("left", value=6.0), mesh.fixed("right")], law=eyring)
    values = {name: torch.tensor(v, requires_grad=True) for name, v in (("k", 1.3), ("s", 0.4))}
    params = {"flow": values}
    solution = bilevel.argmin(flow, flow.start(), params)
    torch.testing.assert_close(
        flow.expand(solution.u)[:, 0].detach(), 6.0 - 3.0 * mesh.coordinates[:, 0], rtol=0.0, atol=1e-8
    )
    inflow = -flow.nodal_forces(flow.expand(solution.u), params)[mesh.nodes_on("right")].sum()
    exact = 1.3 * 0.4 * torch.asinh(torch.tensor(3.0 / 0.4))
    assert float(inflow.detach().abs()) == pytest.approx(float(exact), rel=1e-9)


def test_tangents_on_meshes_are_derivatives(eyring):
    x = torch.randn(7, 1, 3, generator=torch.Generator().manual_seed(0))
    params = {"k": torch.tensor(1.3), "s": torch.tensor(0.4)}
    curvature = torch.func.vmap(torch.func.jacfwd(torch.func.grad(lambda g: eyring.energy(g, params))))(x[:, 0])
    torch.testing.assert_close(eyring.tangent(x, params, 1)[:, 0], curvature, rtol=1e-9, atol=1e-12)
    rest = eyring.tangent(0.0 * x, params, 1)[:, 0]
    torch.testing.assert_close(rest, 1.3 * torch.eye(3).expand(7, 3, 3), rtol=1e-12, atol=1e-12)


def test_first_guesses_are_made_of_it(eyring):
    """Linear systems without a network find the same heads as Newton's method, on a graph and on a mesh."""
    generator = torch.Generator().manual_seed(1)
    edges = torch.combinations(torch.arange(12))[torch.randperm(66, generator=generator)[:30]]
    network = FlowNetwork(Graph(12, edges), eyring, [Dirichlet("well", torch.tensor([0]), value=20.0)])
    mesh = rectangle(6, 6, shape=Shape.TRIANGLE)
    held = [mesh.fixed("left", value=20.0), mesh.fixed("right")]
    for problem, cells, typical in (
        (network, len(edges), 4.0),
        (Diffusion(mesh, held, law=eyring), len(mesh.cells), 20.0),
    ):
        flow = {"k": torch.rand(cells, generator=generator) + 0.1, "s": torch.tensor(0.5)}
        params = {"flow": flow, "inflow": torch.linspace(-1.0, 0.5, 12)} if problem is network else {"flow": flow}
        split = FlowCells(problem, params, typical)
        newton = Newton(tolerance=Tolerance(1e-10))
        guess = LearnedGuess(lambda problem, params, split=split: split, [None] * 8, newton)
        found = guess.solve(problem, split.linear_start(), params)
        expected = newton.solve(problem, split.linear_start(), params)
        assert found.report.converged
        assert found.report.counts.fallbacks == 0
        torch.testing.assert_close(found.u, expected.u, rtol=1e-7, atol=1e-7)
