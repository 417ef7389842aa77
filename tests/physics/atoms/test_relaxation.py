"""Relaxed structures: published values, gradients against re-relaxed differences, batches, and what is said of bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixCartesian
from crystals import COPPER, defaults, jacobian_errors, tensors
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

from bilevel import FIRE, LBFGS, Constant, ConvergenceError, GradientDescent, InputError, Newton, Unrolled
from bilevel.problem import Params
from physics.atoms import (
    AnyEnergy,
    Buckingham,
    CaiYe,
    LennardJones,
    Morse,
    StillingerWeber,
    Structures,
    TabulatedEAM,
    UserPair,
    elastic_tensor,
    energy_and_forces,
    relax,
    tabulate,
)
from physics.atoms.bonds import Bonds
from physics.atoms.units import BOLTZMANN, GPA

SW = StillingerWeber()
SI = defaults(StillingerWeber)
LJ = LennardJones(("Ar",), 8.5, 2.0)
ARGON = tensors({"epsilon": 119.8 * BOLTZMANN, "sigma": 3.405})


def lattice_constant(relaxed: Structures) -> Tensor:
    """Of one relaxed primitive fcc cell."""
    return 2.0 * relaxed.cells[0, 0, 1]


def test_lennard_jones_fcc() -> None:
    potential, params = LennardJones(("Ar",), 20.0, 2.0), tensors({"epsilon": 1.0, "sigma": 1.0})
    rest = relax(Structures.of(bulk("Ar", "fcc", a=1.6)), potential, params)
    modulus = elastic_tensor(rest.structures, potential, params).bulk_modulus / GPA
    assert float(lattice_constant(rest.structures)) / math.sqrt(2) == pytest.approx(1.0902, rel=1e-3)
    assert float(rest.energies) == pytest.approx(-8.610, rel=1e-3)
    assert float(modulus) == pytest.approx(75.18, rel=1e-3)


def test_argon() -> None:
    potential = LennardJones(("Ar",), 60.0, 5.0)
    rest = relax(Structures.of(bulk("Ar", "fcc", a=5.4)), potential, ARGON)
    assert float(lattice_constant(rest.structures)) == pytest.approx(5.250, rel=5e-3)
    assert -float(rest.energies) == pytest.approx(0.0889, rel=5e-3)
    assert float(elastic_tensor(rest.structures, potential, ARGON).bulk_modulus) == pytest.approx(3.15, rel=5e-3)


def broken_silicon() -> Atoms:
    """A crystal without symmetry: shaken, sheared, with an atom taken out."""
    atoms = bulk("Si", "diamond", a=5.5, cubic=True)
    del atoms[0]
    atoms.rattle(0.1, seed=4)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * np.arange(9).reshape(3, 3) / 9), scale_atoms=True)
    return atoms


def test_nothing_is_left_at_rest() -> None:
    rest = relax(Structures.of([broken_silicon(), bulk("Si", "diamond", a=5.5)]), SW, SI)
    _, forces, stresses = energy_and_forces(rest.structures, SW, SI)
    assert float(forces.abs().max()) <= 1e-9
    assert float(stresses.abs().max()) <= 1e-7
    assert float(rest.forces.max()) <= 1e-9
    assert float(rest.stresses.max()) <= 1e-7
    assert lattice_constant(rest.structures.select([1])).item() == pytest.approx(5.431, rel=1e-4)
    assert rest.energies[1].item() / 2 == pytest.approx(-4.3366, rel=1e-4)


def test_gradients_of_relaxed_silicon() -> None:
    """d(position, cell, energy)/d(parameter) against differences of tightly re-relaxed structures."""
    start = Structures.of(broken_silicon())

    def outcome(params: dict[str, Tensor]) -> Tensor:
        rest = relax(start, SW, params, force_tolerance=1e-11, stress_tolerance=1e-10)
        bond = rest.structures.positions[3] - rest.structures.positions[2]
        return torch.stack([bond[1], rest.structures.cells[0, 0, 1], rest.energies[0]])

    errors = jacobian_errors(outcome, SI, ["epsilon", "sigma", "lambda", "B", "p"])
    assert float(errors.max()) < 1e-7


def test_certificate_covers_a_loose_relaxation() -> None:
    def gradient(tolerance: float) -> tuple[Tensor, float]:
        leaves = {name: value.clone().requires_grad_() for name, value in SI.items()}
        rest = relax(start, SW, leaves, force_tolerance=tolerance, stress_tolerance=1.0, solver=LBFGS())
        rest.structures.cells[0, 0, 1].backward()
        flat = torch.stack([leaf.grad if leaf.grad is not None else torch.tensor(0.0) for leaf in leaves.values()])
        return flat, rest.gradients[0].relative_error

    start = Structures.of(broken_silicon())
    loose, claimed = gradient(1e-3)
    tight, _ = gradient(1e-10)
    error = float((loose - tight).norm() / tight.norm())
    assert error <= 1.5 * claimed
    assert claimed <= 20 * error


def test_gradient_in_the_starting_cell_of_a_fixed_cell() -> None:
    """Cells that are held are parameters like any other."""
    start = Structures.of(broken_silicon())

    def outcome(params: dict[str, Tensor]) -> Tensor:
        stretch = torch.diag(torch.stack([params["stretch"], torch.tensor(1.0), torch.tensor(1.0)]))
        return relax(start.deformed(stretch), SW, SI, cell=False).energies

    assert float(jacobian_errors(outcome, {"stretch": torch.tensor(1.01)}, ["stretch"])) < 1e-7


def test_pressure() -> None:
    """dE/dV = -p, and the lattice gives way by the bulk modulus."""
    start = Structures.of(bulk("Si", "diamond", a=5.43))
    pressure = torch.tensor(1.0, requires_grad=True)
    rest = relax(start, SW, SI, pressure=pressure)
    stress = energy_and_forces(rest.structures, SW, SI)[2]
    assert torch.allclose(stress[0, :3], torch.full((3,), -1.0), atol=1e-7)
    (slope,) = torch.autograd.grad(torch.log(rest.structures.volumes[0]), pressure)
    h = 1e-3
    high, low = (relax(start, SW, SI, pressure=1.0 + k * h).structures.volumes.log() for k in (1, -1))
    assert float(slope) == pytest.approx(float(high - low) / (2 * h), rel=1e-6)


def test_chosen_strain_components_and_held_atoms() -> None:
    atoms = broken_silicon()
    atoms.set_constraint([FixAtoms([0]), FixCartesian(1, [True, False, False])])
    start = Structures.of(atoms)
    rest = relax(start, SW, SI, cell=["zz"])
    strain = torch.linalg.solve(start.cells[0], rest.structures.cells[0]) - torch.eye(3)
    assert float(strain[2, 2].abs()) > 1e-3
    strain[2, 2] = 0.0
    assert float(strain.abs().max()) < 1e-12
    moved = (
        rest.structures.positions
        - start.deformed(torch.linalg.solve(start.cells[0], rest.structures.cells[0])).positions
    )
    assert float(moved[0].abs().max()) < 1e-12
    assert float(moved[1, 0].abs()) < 1e-12
    assert float(moved[1, 1].abs()) > 1e-6
    _, _, stresses = energy_and_forces(rest.structures, SW, SI)
    assert float(stresses[0, 2].abs()) < 1e-6
    assert float(stresses[0, 0].abs()) > 1e-2


def test_molecules_do_not_turn_and_atoms_in_a_row_have_five_rigid_motions() -> None:
    """A Lennard-Jones trimer and dimer: every distance is 2^(1/6) sigma, and the gradient says so."""
    potential = LennardJones(("Ar",), 100.0, 1.0)
    triangle = Atoms("Ar3", [[0, 0, 0], [3.6, 0.1, 0.2], [1.5, 3.5, 0.1]])
    row = Atoms("Ar2", [[0, 0, 0], [2.0, 2.0, 2.5]])
    sigma = torch.tensor(3.405, requires_grad=True)
    rest = relax(Structures.of([triangle, row]), potential, {"epsilon": ARGON["epsilon"], "sigma": sigma})
    x = rest.structures.positions
    sides = torch.stack([(x[1] - x[0]).norm(), (x[2] - x[0]).norm(), (x[2] - x[1]).norm(), (x[4] - x[3]).norm()])
    assert torch.allclose(sides / sigma, torch.full((4,), 2.0 ** (1 / 6)), rtol=1e-10)
    (slope,) = torch.autograd.grad(sides.sum(), sigma)
    assert float(slope) == pytest.approx(4 * 2.0 ** (1 / 6), rel=1e-7)


def test_a_batch_of_different_sizes_is_each_one_by_itself() -> None:
    atoms = [
        bulk("Cu", a=3.5),
        bulk("Cu", cubic=True, a=3.7),
        bulk("Cu", a=3.65).repeat(2),
        bulk("Cu", cubic=True).repeat((2, 1, 1)),
    ]
    for k, one in enumerate(atoms):
        one.rattle(0.05, seed=k)
    potential, params = CaiYe(("Cu",)), tensors(COPPER)
    together = relax(Structures.of(atoms), potential, params)
    assert len(together.solutions) < len(atoms)
    assert all(together.converged)
    for k, one in enumerate(atoms):
        alone = relax(Structures.of(one), potential, params)
        assert float(together.energies[k]) == pytest.approx(float(alone.energies[0]), abs=1e-10)
        assert torch.allclose(together.structures.cells[k], alone.structures.cells[0], atol=1e-8)


@pytest.mark.parametrize("solver", [Newton(), LBFGS(), FIRE()])
def test_solvers_agree(solver: Newton | LBFGS | FIRE) -> None:
    start = Structures.of(broken_silicon())
    rest = relax(start, SW, SI, solver=solver, force_tolerance=1e-8, stress_tolerance=1e-6)
    reference = relax(start, SW, SI)
    assert float(rest.energies[0]) == pytest.approx(float(reference.energies[0]), abs=1e-12)


def test_warm_start_costs_less() -> None:
    start = Structures.of(broken_silicon())
    first = relax(start, SW, SI)
    again = relax(start, SW, {**SI, "epsilon": SI["epsilon"] * 1.001}, start=first.displacements)
    assert again.reports[0].iterations < first.reports[0].iterations


def test_a_network_is_an_energy() -> None:
    """A message-passing network, relaxed and differentiated in all its weights."""

    class Round(MessagePassing):
        def __init__(self, width: int, out: int) -> None:
            super().__init__(aggr="add", flow="target_to_source")  # at the centre, which comes first in edge_index
            self.network = torch.nn.Sequential(torch.nn.Linear(width + 4, 6), torch.nn.Tanh(), torch.nn.Linear(6, out))

        def forward(self, graph: Data, x: Tensor, waves: Tensor, near: Tensor) -> Tensor:
            return self.propagate(graph.edge_index, x=x, waves=waves, near=near)

        def message(self, x_j: Tensor, waves: Tensor, near: Tensor) -> Tensor:
            return near * self.network(torch.cat([x_j, waves], -1))

    class Messages(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Round(1, 5), Round(5, 1)

        def forward(self, bonds: Bonds) -> Tensor:
            graph = bonds.to_pyg()
            r = graph.edge_attr.norm(dim=-1, keepdim=True)
            near = torch.cos(torch.pi * r / 12.0).clamp_min(0.0) ** 4
            waves = near * torch.exp(-((r - torch.tensor([2.0, 3.0, 4.0, 5.0])) ** 2))
            around = self.first(graph, torch.ones(bonds.atoms, 1), waves, near)
            pair = near * (1.5 * torch.exp(-2.0 * (r - 2.6)) - 1.2 * torch.exp(-(r - 2.6)))
            return 0.1 * self.second(graph, around, waves, near).squeeze(-1) + bonds.sum_at_centres(pair.squeeze(-1))

    network = Messages()
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.rattle(0.05, seed=1)
    start, potential = Structures.of(atoms), AnyEnergy(network, ("Cu",), 6.0)
    weights = dict(network.named_parameters())
    rest = relax(start, potential, weights, force_tolerance=1e-11, stress_tolerance=1e-9)
    name = "second.network.0.weight"
    (slope,) = torch.autograd.grad(rest.structures.volumes[0], weights[name])
    direction = torch.randn(slope.shape)
    volumes = []
    for step in (1e-3, -1e-3):
        moved = {k: v.detach() for k, v in weights.items()} | {name: weights[name].detach() + step * direction}
        volumes.append(
            float(relax(start, potential, moved, force_tolerance=1e-11, stress_tolerance=1e-9).structures.volumes)
        )
    assert float((slope * direction).sum()) == pytest.approx((volumes[0] - volumes[1]) / 2e-3, rel=1e-5)


@pytest.mark.parametrize("condition", [1e4, 1e6, 1e8])
def test_chain_of_springs(condition: float) -> None:
    """A soft spring A-B beside a stiff one B-C, pulled apart by F: b_AB = r1 + F/k1, whatever the other is."""

    def springs(r: Tensor, p: Params) -> Tensor:
        return 0.5 * p["k"] * (r - p["rest"]) ** 2

    force = 0.1
    atoms = Atoms("HHeLi", [[0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]])
    atoms.arrays["loads"] = np.array([[-force, 0, 0], [0, 0, 0], [force, 0, 0]])
    k = torch.tensor([0.0, 1.0, 0.0, 0.0, condition, 0.0], requires_grad=True)  # HH, HHe, HLi, HeHe, HeLi, LiLi
    rest = torch.ones(6, requires_grad=True)
    relaxed = relax(Structures.of(atoms), UserPair(springs, ("H", "He", "Li"), 10.0), {"k": k, "rest": rest})
    bond = relaxed.structures.positions[1, 0] - relaxed.structures.positions[0, 0]
    bond.backward()
    assert float(bond.detach()) == pytest.approx(1.0 + force, abs=1e-8)
    across = -(1.0 + force + force / condition)  # a spring A-C would take load off A-B
    exact = torch.tensor([0, -force, across, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    assert k.grad is not None
    assert rest.grad is not None
    error = (torch.cat([k.grad, rest.grad]) - exact).norm() / exact.norm()
    assert float(error) < 1e-8
    assert float(error) <= 2.0 * relaxed.gradients[0].relative_error


def named(name: str, atoms: Atoms) -> Atoms:
    atoms.info["name"] = name
    return atoms


def test_bad_structures_are_named() -> None:
    cell = [5.0, 5.0, 5.0]
    with pytest.raises(InputError, match=r"the pair: atoms 0 and 1 are on top of each other"):
        Structures.of([bulk("Cu"), named("the pair", Atoms("Cu2", [[0, 0, 0], [0, 0, 4.99]], cell=cell, pbc=True))])
    with pytest.raises(InputError, match=r"the sheet: its periodic cell is 0.1 angstrom thick"):
        Structures.of(named("the sheet", Atoms("Cu", cell=[5, 5, 0.1], pbc=True)))
    with pytest.raises(InputError, match=r"the flat one: its periodic cell is"):
        Structures.of(named("the flat one", Atoms("Cu", cell=[5, 5, 0], pbc=True)))
    with pytest.raises(InputError, match=r"nothing: has no atoms"):
        Structures.of(named("nothing", Atoms()))
    with pytest.raises(InputError, match=r"lost: has positions or cell vectors that are NaN"):
        Structures.of(named("lost", Atoms("Cu", [[np.nan, 0, 0]])))
    held = named("held", bulk("Cu"))
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match=r"held: every atom and strain component is held"):
        relax(Structures.of(held), CaiYe(("Cu",)), tensors(COPPER), cell=False)
    pushed = named("pushed", bulk("Cu"))
    pushed.arrays["loads"] = np.array([[1.0, 0, 0]])
    with pytest.raises(InputError, match=r"pushed: the loads do not balance"):
        relax(Structures.of(pushed), CaiYe(("Cu",)), tensors(COPPER))


def test_bad_parameters_are_named() -> None:
    start = Structures.of(bulk("Si"))
    with pytest.raises(InputError, match="StillingerWeber needs the parameter sigma"):
        relax(start, SW, {name: value for name, value in SI.items() if name != "sigma"})
    with pytest.raises(InputError, match=r"StillingerWeber: epsilon = -1 eV must lie above 0"):
        relax(start, SW, {**SI, "epsilon": torch.tensor(-1.0)})
    with pytest.raises(InputError, match="strain components are a list of xx, yy"):
        relax(start, SW, SI, cell=["xz", "ww"])
    with pytest.raises(InputError, match="tolerances must be positive"):
        relax(start, SW, SI, force_tolerance=0.0)


def test_a_relaxation_that_does_not_converge_is_named() -> None:
    good, bad = named("good", bulk("Si", a=5.43)), named("bad", broken_silicon())
    start = Structures.of([good, bad])
    with pytest.raises(ConvergenceError, match=r"bad did not come to rest: stopped at the iteration limit"):
        relax(start, SW, SI, solver=Newton(max_iterations=2))
    with pytest.warns(RuntimeWarning, match="bad did not come to rest"):
        rest = relax(start, SW, SI, solver=Newton(max_iterations=2), on_fail="warn")
    assert rest.converged == [True, False]


@pytest.mark.slow
def test_a_cell_far_from_rest_or_that_collapses_is_no_solution() -> None:
    """Both end at the largest stretch, where no step is possible: that is no minimum."""
    with pytest.raises(ConvergenceError, match=r"dense did not come to rest.*cell has changed by the factor 2"):
        relax(Structures.of(named("dense", bulk("Ar", a=1.5))), LennardJones(("Ar",), 4.0), ARGON)
    unbounded = tensors({"a": 1000.0, "rho": 0.3, "c": 5000.0})
    with pytest.raises(ConvergenceError, match=r"collapsing did not come to rest"):
        relax(Structures.of(named("collapsing", bulk("Ar", a=2.0))), Buckingham(("Ar",), 4.0), unbounded)


def test_a_relaxation_that_leaves_the_table_is_named() -> None:
    table = tabulate(CaiYe(("Cu",)), tensors(COPPER), densest=9.0, points=500)
    with pytest.raises(InputError, match=r"dense: the density \S+ at an atom is beyond the table's 9"):
        relax(Structures.of(named("dense", bulk("Cu", a=3.6))), TabulatedEAM(table), {})


def test_morse_dimer_vibrates_in_closed_form() -> None:
    """Its stiffness at rest is 2 depth alpha^2, and does not depend on where it lies."""
    params = tensors({"depth": 0.5, "alpha": 1.7, "r0": 2.1})
    potential = Morse(("Cu",), 50.0)
    rest = relax(Structures.of(Atoms("Cu2", [[0, 0, 0], [1.3, 1.2, 1.4]])), potential, params)
    x = rest.structures.positions
    assert float((x[1] - x[0]).norm()) == pytest.approx(2.1, abs=1e-10)
    from physics.atoms import phonon_frequencies
    from physics.atoms.units import TERAHERTZ

    mass = float(rest.structures.masses[0])
    highest = phonon_frequencies(rest.structures, potential, params, torch.zeros(1, 3))[0, -1]
    assert float(highest) == pytest.approx(TERAHERTZ * math.sqrt(2 * 0.5 * 1.7**2 * 2 / mass), rel=1e-9)


def test_the_gradient_of_an_unrolled_relaxation_is_the_implicit_one() -> None:
    """Through all steps of gradient descent, which torch.func differentiates; neighbours are listed outside of it."""
    cluster = Atoms("Ar3", [[0, 0, 0], [3.9, 0, 0], [1.8, 3.5, 0.2]], cell=[20, 20, 20], pbc=True)
    gradients = []
    for adjoint, solver in ((None, None), (Unrolled(), GradientDescent(step=Constant(3.0), max_iterations=2000))):
        params = {name: value.clone().requires_grad_() for name, value in ARGON.items()}
        rest = relax(Structures.of(cluster), LJ, params, cell=False, adjoint=adjoint, solver=solver, on_fail="ignore")
        (rest.structures.positions[1] - rest.structures.positions[0]).norm().backward()
        gradients.append(float(params["sigma"].grad))  # type: ignore[arg-type]
    assert gradients[1] == pytest.approx(gradients[0], rel=1e-4)
    assert gradients[0] == pytest.approx(
        2 ** (1 / 6), rel=0.01
    )  # the distance of a triangle at rest but for the cut-off
