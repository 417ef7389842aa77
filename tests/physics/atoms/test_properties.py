"""Properties of crystals at rest: published values, symmetries, and gradients against re-relaxed differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from crystals import COPPER, defaults, jacobian_errors, tensors
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.atoms import (
    AnyEnergy,
    CaiYe,
    LennardJones,
    StillingerWeber,
    Structures,
    Tersoff,
    UserPair,
    elastic_tensor,
    energy_and_forces,
    equation_of_state,
    phonon_frequencies,
    relax,
    stacking_fault_energy,
    supercell,
    surface_energy,
    vacancy_energy,
)
from physics.atoms.crystal_energy import CrystalEnergy
from physics.atoms.units import GPA, TERAHERTZ

SW, SI = StillingerWeber(), defaults(StillingerWeber)
CY, CU = CaiYe(("Cu",)), tensors(COPPER)
FCC = Structures.of(bulk("Cu", a=3.6), ["copper"])
DIAMOND = Structures.of(bulk("Si", a=5.43), ["silicon"])


def test_stillinger_weber_silicon() -> None:
    rest = relax(DIAMOND, SW, SI)
    tensor = elastic_tensor(rest.structures, SW, SI)
    assert float(2 * rest.structures.cells[0, 0, 1]) == pytest.approx(5.431, rel=3e-4)
    assert float(rest.energies) / 2 == pytest.approx(-4.3366, rel=3e-5)
    assert [float(c) for c in tensor.cubic] == pytest.approx([151.4, 76.4, 56.4], rel=3e-3)
    # Unrelaxed C44: matscipy's Born constants of the same parameters give 109.757 too.
    assert float(tensor.born[3, 3]) == pytest.approx(109.757, rel=1e-4)


def test_tersoff_silicon() -> None:
    params = defaults(Tersoff)
    rest = relax(DIAMOND, Tersoff(), params)
    c11, c12, c44 = elastic_tensor(rest.structures, Tersoff(), params).cubic
    assert float(2 * rest.structures.cells[0, 0, 1]) == pytest.approx(5.432, rel=3e-4)
    assert float(rest.energies) / 2 == pytest.approx(-4.63, rel=1e-3)
    assert [float(c11), float(c12), float(c44)] == pytest.approx([143, 75, 69], rel=6e-3)


def skewed_silicon() -> Structures:
    atoms = bulk("Si", "diamond", a=5.5, cubic=True)
    del atoms[0]
    atoms.rattle(0.1, seed=4)
    return Structures.of(atoms)


def test_elastic_tensor_is_the_curvature_of_the_relaxed_energy() -> None:
    """A crystal of no symmetry: all 21 constants by differences of stresses of re-relaxed structures."""
    rest = relax(skewed_silicon(), SW, SI).structures
    tensor = elastic_tensor(rest, SW, SI)
    assert torch.allclose(tensor.relaxed, tensor.relaxed.mT, atol=1e-8)
    h = 1e-4
    columns, carried = [], []
    for k in range(6):
        stresses = []
        for sign in (h, -h):
            strain = np.zeros(6)
            strain[k] = sign
            xx, yy, zz, yz, xz, xy = strain
            gradient = torch.eye(3) + torch.tensor([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])
            deformed = rest.deformed(gradient)
            stresses.append(energy_and_forces(deformed, SW, SI)[2][0])
            held = relax(deformed, SW, SI, cell=False)
            stresses.append(energy_and_forces(held.structures, SW, SI)[2][0])
        carried.append((stresses[0] - stresses[2]) / (2 * h))
        columns.append((stresses[1] - stresses[3]) / (2 * h))
    assert torch.allclose(torch.stack(columns, 1), tensor.relaxed, atol=1e-4 * float(tensor.relaxed.max()))
    assert torch.allclose(torch.stack(carried, 1), tensor.born, atol=1e-4 * float(tensor.born.max()))
    assert float((tensor.born - tensor.relaxed).diagonal().min()) > 1.0


def test_gradients_of_silicons_constants_and_phonons() -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.3, 0.1, 0.2]])

    def outcome(params: dict[str, Tensor]) -> Tensor:
        rest = relax(DIAMOND, SW, params, force_tolerance=1e-11, stress_tolerance=1e-10).structures
        modes = phonon_frequencies(rest, SW, params, points)
        tensor = elastic_tensor(rest, SW, params)
        return torch.stack([*tensor.cubic, tensor.bulk_modulus, modes[0, 5], modes[1, 0], modes[2, 0], modes[2, 3]])

    assert float(jacobian_errors(outcome, SI, ["epsilon", "sigma", "lambda", "gamma", "B"]).max()) < 1e-7


def test_gradients_of_coppers_constants_and_vacancy() -> None:
    def outcome(params: dict[str, Tensor]) -> Tensor:
        rest = relax(FCC, CY, params, force_tolerance=1e-11, stress_tolerance=1e-10)
        vacancy, _ = vacancy_energy(rest, CY, params, [2, 2, 2])
        return torch.stack(
            [*elastic_tensor(rest.structures, CY, params).cubic, vacancy, rest.structures.cells[0, 0, 1]]
        )

    assert float(jacobian_errors(outcome, CU, ["F0", "n", "beta", "ra", "chi"]).max()) < 1e-7


def test_gradient_of_a_phonon_of_a_degenerate_pair_is_that_of_their_mean() -> None:
    leaf = SI["epsilon"].clone().requires_grad_()
    modes = phonon_frequencies(DIAMOND, SW, {**SI, "epsilon": leaf}, torch.zeros(1, 3))[0]
    (slope,) = torch.autograd.grad(modes.sum(), leaf)
    # omega ~ sqrt(epsilon)
    assert float(slope) == pytest.approx(float(modes.detach().sum() / (2 * SI["epsilon"])), rel=1e-10)


def test_chain_of_atoms_has_the_textbook_dispersion() -> None:
    """One atom a cell, springs to its neighbours: omega = 2 sqrt(k/m) |sin(q a / 2)|."""

    def spring(r: Tensor, p: Params) -> Tensor:
        return 0.5 * p["k"] * (r - 2.0) ** 2

    row = Structures.of(Atoms("Cu", cell=[2.0, 30.0, 30.0], pbc=[True, False, False]))
    q = torch.tensor([0.1, 0.25, 0.5])
    modes = phonon_frequencies(
        row, UserPair(spring, ("Cu",), 3.0, 0.5), {"k": torch.tensor(1.7)}, torch.stack([q, 0 * q, 0 * q], 1)
    )
    exact = 2 * math.sqrt(1.7 / float(row.masses[0])) * torch.sin(math.pi * q) * TERAHERTZ
    assert torch.allclose(modes[:, 2], exact, rtol=1e-12)


def test_phonons_of_a_cell_are_those_of_its_supercell() -> None:
    """X folds onto the centre of the doubled cell; and the Hessian's eigenvalues say the same."""
    rest = relax(FCC, CY, CU).structures
    modes = phonon_frequencies(rest, CY, CU, torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]))
    double = supercell(rest, [[1, 1, 0], [1, 0, 1], [0, 1, 1]])
    assert int(double.counts) == 2
    folded = phonon_frequencies(double, CY, CU, torch.zeros(1, 3))
    assert torch.allclose(folded[0], modes.reshape(-1).sort().values, atol=1e-8)
    problem = CrystalEnergy(double, CY, torch.zeros(1, 6, dtype=torch.bool))
    hessian = problem.hessian(problem.start(), problem.parameters(CU))[0][6:, 6:]
    values = torch.linalg.eigvalsh(hessian / float(double.masses[0])).clamp_min(0.0).sqrt() * TERAHERTZ
    assert torch.allclose(values[3:], folded[0, 3:], rtol=1e-8)


def test_equation_of_state_curves_by_the_bulk_modulus() -> None:
    rest = relax(FCC, CY, CU)
    h = 1e-3
    curve = equation_of_state(rest.structures, CY, CU, [1 - h, 1.0, 1 + h])
    volume = float(curve.volumes[1])
    curvature = float(curve.energies[0] - 2 * curve.energies[1] + curve.energies[2]) / (h * volume) ** 2
    modulus = float(elastic_tensor(rest.structures, CY, CU).bulk_modulus)
    assert curvature * volume * GPA == pytest.approx(modulus, rel=1e-4)


def test_vacancy_converges_with_the_supercell_and_relaxing_lowers_it() -> None:
    rest = relax(FCC, CY, CU)
    cubic = [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]
    energies = [float(vacancy_energy(rest, CY, CU, (k * np.array(cubic)).tolist())[0]) for k in (2, 3)]
    assert energies[0] == pytest.approx(energies[1], rel=0.02)
    relaxed = vacancy_energy(rest, CY, CU, (2 * np.array(cubic)).tolist(), cell=True)[0]
    assert float(relaxed) < energies[0]


def test_a_pair_potentials_vacancy_costs_the_cohesive_energy() -> None:
    """Without relaxation it is exactly so; relaxation takes a little off."""
    potential, params = LennardJones(("Ar",), 8.5, 2.0), tensors({"epsilon": 0.0103, "sigma": 3.405})
    rest = relax(Structures.of(bulk("Ar", a=5.3)), potential, params)
    energy, _ = vacancy_energy(rest, potential, params, [3, 3, 3])
    assert 0.95 < float(energy / -rest.energies[0]) < 1.0


def test_surface_and_stacking_fault_of_copper() -> None:
    rest = relax(FCC, CY, CU)
    slab = fcc111("Cu", (1, 1, 9), a=3.6, vacuum=8.0, orthogonal=False)
    slab.pbc = True
    one = surface_energy(rest, Structures.of(slab), FCC.cells[0], CY, CU)
    wide = fcc111("Cu", (2, 1, 9), a=3.6, vacuum=8.0, orthogonal=False)
    wide.pbc = True
    assert float(one) == pytest.approx(float(surface_energy(rest, Structures.of(wide), FCC.cells[0], CY, CU)), rel=1e-6)
    assert 0.2 < float(one) * 16.02 < 2.5
    faults = [float(stacking_fault_energy(rest, CY, CU, layers)) for layers in (9, 12)]
    assert faults[0] == pytest.approx(faults[1], abs=1e-4)
    assert abs(faults[0]) * 16.02 < 0.2


def test_a_stacking_fault_is_two_layers_of_hcp() -> None:
    """With neighbours of the third layer only, the fault costs twice the difference of a third-neighbour pair of layers."""
    potential, params = LennardJones(("Ar",), 8.5, 2.0), tensors({"epsilon": 0.0103, "sigma": 3.405})
    fcc = relax(Structures.of(bulk("Ar", a=5.3)), potential, params)
    a = float(2 * fcc.structures.cells[0, 0, 1])
    hcp = bulk("Ar", "hcp", a=a / math.sqrt(2), c=a / math.sqrt(2) * math.sqrt(8 / 3))
    unrelaxed = energy_and_forces(Structures.of(hcp), potential, params)[0]
    area = math.sqrt(3) / 4 * a**2
    estimate = 2 * (float(unrelaxed) / 2 - float(fcc.energies[0])) / area  # two layers stacked as in hcp
    assert float(stacking_fault_energy(fcc, potential, params, 12)) == pytest.approx(estimate, rel=0.15)


def test_gradient_of_a_stacking_fault_and_a_surface() -> None:
    slab = fcc111("Cu", (1, 1, 6), a=3.6, vacuum=8.0)
    slab.pbc = True

    def outcome(params: dict[str, Tensor]) -> Tensor:
        rest = relax(FCC, CY, params, force_tolerance=1e-11, stress_tolerance=1e-10)
        surface = surface_energy(rest, Structures.of(slab), FCC.cells[0], CY, params)
        return torch.stack([surface, stacking_fault_energy(rest, CY, params, 6)])

    assert float(jacobian_errors(outcome, CU, ["n", "beta", "ra"]).max()) < 1e-6


def test_what_properties_refuse() -> None:
    two = Structures.of([bulk("Si"), bulk("Si", cubic=True)])
    with pytest.raises(InputError, match="elastic constants are those of one crystal"):
        elastic_tensor(two, SW, SI)
    with pytest.raises(InputError, match="elastic constants are those of one crystal, got molecule"):
        elastic_tensor(Structures.of(Atoms("Si2", [[0, 0, 0], [2, 0, 0]]), ["molecule"]), SW, SI)
    with pytest.raises(InputError, match="phonons of AnyEnergy: take a supercell"):
        phonon_frequencies(DIAMOND, AnyEnergy(lambda bonds, _: bonds.lengths, ("Si",), 3.0), {}, torch.zeros(1, 3))
    with pytest.raises(InputError, match="primitive cell of an fcc crystal"):
        stacking_fault_energy(relax(DIAMOND, SW, SI), SW, SI, 9)
