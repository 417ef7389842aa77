"""What counts as converged: neither start, datum nor units decide; what has no minimum, or cannot be known better, says so."""

from __future__ import annotations

import pytest
import torch

import bilevel
import physics.discretisation as meshes
from bilevel.problem import Energy
from bilevel.report import ConvergenceError, Status
from bilevel.solvers import LBFGS, GradientDescent, Newton
from bilevel.solvers.evaluations import Evaluations
from bilevel.solvers.steps import TrustRegion
from physics.constitutive import Kinematics
from physics.constitutive.elastic.linear_elastic import LinearElastic
from physics.constitutive.elastic.mooney_rivlin import MooneyRivlin
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.constitutive.flow.power_law import PowerLaw
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.flow.network import FlowNetwork
from physics.solids import Solid, Traction

ONE = torch.tensor(1.0)


def in_series(level: float, start: float) -> torch.Tensor:
    """The fluxes of two pipes in series with demands 50 and 50, from heads `start` above or below the tank."""
    tank = Dirichlet("tank", torch.tensor([0]), value=level)
    graph = Graph(3, torch.tensor([[0, 1], [1, 2]]))
    network = FlowNetwork(graph, PowerLaw.from_loss_exponent(1.852, 1e-10), [tank])
    flow = {"conductance": torch.tensor((1e-6) ** (-1.0 / 1.852))}
    params = {"flow": flow, "inflow": torch.tensor([0.0, -50.0, -50.0])}
    return network.flux(bilevel.argmin(network, (level + start) * torch.ones(2), params).u, params)


@pytest.mark.parametrize("level", [0.0, 1000.0, -3e4])
@pytest.mark.parametrize("start", [0.0, -1.0, 1e-3])
def test_neither_the_datum_nor_an_infinitely_stiff_start_decides_how_accurate_fluxes_are(level: float, start: float):
    torch.testing.assert_close(in_series(level, start), torch.tensor([100.0, 50.0]), rtol=1e-6, atol=0.0)


def lattice(m: int) -> Graph:
    index = torch.arange(m * m).reshape(m, m)
    across = torch.stack([index[:, :-1].reshape(-1), index[:, 1:].reshape(-1)], 1)
    down = torch.stack([index[:-1].reshape(-1), index[1:].reshape(-1)], 1)
    return Graph(m * m, torch.cat([across, down]))


@pytest.mark.parametrize("solver", [Newton(), LBFGS(max_iterations=100_000)], ids=["Newton", "LBFGS"])
def test_what_flows_in_flows_out_whatever_the_contrast(solver) -> None:
    contrast = 4.8 if isinstance(solver, Newton) else 0.5
    graph, generator = lattice(6), torch.Generator().manual_seed(3)
    ends = [Dirichlet("in", torch.tensor([0]), value=1.0), Dirichlet("out", torch.tensor([35]), value=0.0)]
    network = FlowNetwork(graph, PowerLaw(5.0), ends)
    params = {"flow": {"conductance": torch.exp(contrast * torch.randn(60, generator=generator))}}
    params["inflow"] = torch.zeros(36)
    u = bilevel.argmin(network, network.start(), params, solver=solver).u
    flux = network.flux(u, params)
    net = torch.zeros(36).index_add(0, graph.edges[:, 0], flux).index_add(0, graph.edges[:, 1], -flux)
    assert float(net[0]) == pytest.approx(-float(net[-1]), rel=1e-6)


def test_a_start_far_away_is_no_excuse() -> None:
    near, far = (
        bilevel.argmin(lambda u, p: ((u - p) ** 2 + 0.1 * (u - p) ** 4).sum(), s * torch.ones(2), ONE).u
        for s in (2.0, 1e6)
    )
    torch.testing.assert_close(near, torch.ones(2), rtol=1e-9, atol=0.0)
    torch.testing.assert_close(far, torch.ones(2), rtol=1e-9, atol=0.0)


def test_where_all_terms_vanish_the_start_is_the_measure() -> None:
    found = bilevel.argmin(lambda u, p: p * (u**2).sum(), torch.ones(3), ONE, solver=LBFGS())
    assert float(found.u.norm()) < 1e-9


@pytest.mark.parametrize(
    "solver", [Newton(), LBFGS(), GradientDescent(), Newton(step=TrustRegion())], ids=lambda s: type(s).__name__
)
def test_an_energy_without_a_minimum_runs_away_and_says_so(solver) -> None:
    found = bilevel.argmin(lambda u, p: torch.exp(-p * u).sum(), torch.zeros(1), ONE, on_fail="ignore", solver=solver)
    assert found.report.status == [Status.UNBOUNDED]
    with pytest.raises(bilevel.ConvergenceError, match="ran away"):
        bilevel.argmin(lambda u, p: torch.exp(-p * u).sum(), torch.zeros(1), ONE, solver=solver)


@pytest.mark.parametrize("solver", [Newton(), Newton(step=TrustRegion())], ids=["line search", "trust region"])
def test_a_residual_that_is_small_beside_another_unknown_does_not_hide_a_run_away(solver) -> None:
    found = bilevel.argmin(
        lambda u, p: torch.exp(-p * u[0]) + (u[1] - 1.0) ** 2, torch.zeros(2), ONE, on_fail="ignore", solver=solver
    )
    assert found.report.status == [Status.UNBOUNDED]


def test_slow_convergence_to_a_degenerate_minimum_is_no_run_away() -> None:
    for q in (1.0, 1e3):
        found = bilevel.argmin(lambda u, p: ((u - p) ** 4).sum(), torch.zeros(1), torch.tensor(q))
        assert float(found.u) == pytest.approx(q, rel=1e-4)
    assert float(bilevel.root(lambda u, p: (u - p) ** 2, torch.zeros(1), ONE).u) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("solver", [Newton(), LBFGS(), GradientDescent()], ids=lambda s: type(s).__name__)
def test_a_start_on_a_stationary_point_is_left(solver) -> None:
    found = bilevel.argmin(lambda u, p: (u**4 / 4 - p * u**2 / 2).sum(), torch.zeros(1), ONE, solver=solver)
    assert float(found.u.abs()) == pytest.approx(1.0, rel=1e-8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [1e-6, 1e-10])
def test_quadratic_head_loss_is_solved_from_the_mean_of_the_fixed_heads(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    graph = lattice(5)
    ends = [Dirichlet("a", torch.tensor([0]), value=100.0), Dirichlet("b", torch.tensor([24]), value=90.0)]
    network = FlowNetwork(graph, PowerLaw.from_loss_exponent(2.0, threshold), ends)
    inflow = -torch.rand(25, generator=generator)
    params = {"flow": {"conductance": torch.exp(torch.randn(40, generator=generator))}, "inflow": inflow}
    report = bilevel.argmin(network, 95.0 * torch.ones(network.n), params).report
    assert report.iterations <= 20


def cube(law, cells: int) -> Solid:
    mesh = meshes.box(cells, cells, cells)
    return Solid(mesh, law, None, [mesh.fixed("left")], [Traction("pull", "right")])


LAWS = {
    "neo-Hooke": (NeoHookean(), {"mu": 1.0, "lame_lambda": 2.0}),
    "Mooney-Rivlin": (MooneyRivlin(), {"c10": 0.4, "c01": 0.1, "bulk_modulus": 5.0}),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("size", [1e-7, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("unit", [1.0, 1e9])
def test_solids_at_small_strain_are_solved_in_few_iterations(law: str, size: float, unit: float) -> None:
    """The noise of energy and force is that of the terms that cancel in them, a million times what is left here."""
    material, constants = LAWS[law]
    solid = cube(material, 2)
    for i in range(3):
        constants = {**constants, next(iter(constants)): 1.0 + 0.1 * i}
        params = {"material": {name: torch.tensor(value * unit) for name, value in constants.items()}}
        params["pull"] = size * unit * torch.tensor([1.0, 0.2, 0.0])
        report = bilevel.argmin(solid, solid.start(), params).report
        assert report.iterations <= 6


def test_the_noise_of_an_energy_is_that_of_the_terms_that_cancel_in_it() -> None:
    """1e6 + small - 1e6: what is left is known to 1e-10, not to 1e-16 of itself."""
    energy = Energy(lambda u, p: ((1e6 + u**2) - 1e6).sum() - p * u.sum()).for_unknown(torch.ones(50))
    evaluations = Evaluations(energy, ONE)
    noise = evaluations.noise(evaluations.point(torch.linspace(0.5, 1.5, 50)))
    assert 1e-10 < float(noise.merit) < 1e-5
    quiet = Evaluations(Energy(lambda u: (u**2).sum()).for_unknown(torch.ones(50)), None)
    assert float(quiet.noise(quiet.point(torch.linspace(0.5, 1.5, 50))).merit) < 1e-12


@pytest.mark.parametrize("power", [4, 6])
@pytest.mark.parametrize("unknowns", [1, 2, 3])
def test_every_direction_of_a_saddle_is_left(power: int, unknowns: int) -> None:
    """From the stationary point at 0 along one direction to the next saddle, down to a minimum at +-1 in all."""

    def energy(u, p):
        return (u**power / power - p * u ** (power - 2) / (power - 2)).sum()

    found = bilevel.argmin(energy, torch.zeros(unknowns), ONE)
    torch.testing.assert_close(found.u.abs(), torch.ones(unknowns), rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("law", [LinearElastic(), NeoHookean()], ids=lambda law: type(law).__name__)
def test_a_load_that_moves_a_floating_body_is_named(law) -> None:
    mesh = meshes.rectangle(3, 3)
    solid = Solid(mesh, law, Kinematics.PLANE_STRAIN, [], [Traction("pull", "right")], floating=True)
    params = {"material": {"mu": ONE, "lame_lambda": 2.0 * ONE}, "pull": torch.tensor([1e-3, 0.0])}
    with pytest.raises(ConvergenceError, match="a motion that costs no energy, which nothing can balance"):
        bilevel.argmin(solid, solid.start(), params)


@pytest.mark.parametrize(
    ("solver", "status"), [(Newton(), Status.UNBALANCED), (Newton(step=TrustRegion()), Status.UNBOUNDED)]
)
def test_a_load_along_a_null_space_that_was_not_declared_is_named(solver, status: Status) -> None:
    stiffness = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    found = bilevel.argmin(
        lambda u, p: 0.5 * u @ stiffness @ u - p * u[0], torch.zeros(2), ONE, solver=solver, on_fail="ignore"
    )
    assert found.report.status == [status]


def test_a_trial_that_lapack_refuses_is_stepped_back_from() -> None:
    """Eigenvalues of NaN raise; the first step goes where the volume is negative and its root NaN."""

    def energy(u, p):
        stretches = 1.0 + u
        eigenvalues = torch.linalg.eigvalsh(torch.diag(stretches) + 0.0 * torch.sqrt(stretches.prod()))
        return (0.1 * eigenvalues - 1.5 * torch.log(eigenvalues)).sum() - 0.0 * p

    found = bilevel.argmin(energy, torch.tensor([24.0, 20.0]), ONE)
    torch.testing.assert_close(found.u, torch.tensor([14.0, 14.0]), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("solver", [Newton(), Newton(step=TrustRegion()), LBFGS()], ids=lambda s: type(s.step).__name__)
def test_a_start_without_stiffness_is_left(solver) -> None:
    found = bilevel.argmin(lambda u, p: (u**4 / 4 - p * u).sum(), torch.zeros(30), ONE, solver=solver)
    torch.testing.assert_close(found.u, torch.ones(30), rtol=1e-7, atol=0.0)
