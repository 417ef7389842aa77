"""The weights that come with the package: small, described, and safe on problems that they have not seen."""

import json

import pytest

from bilevel.acceleration.family import Family, Variation
from bilevel.acceleration.learned_guess import guess_solver
from bilevel.acceleration.training.supervised import reference_solution
from bilevel.acceleration.weights_file import Weights, shipped
from bilevel.solvers import Tolerance
from physics.families.large_strain import LargeStrain
from physics.families.twisted_bars import TwistedBars

SHIPPED = [(LargeStrain(), 120), (TwistedBars(), 120)]


@pytest.mark.parametrize(("family", "size"), SHIPPED)
def test_they_are_small_and_say_where_they_come_from(family: Family, size: int) -> None:
    file = shipped(family)
    assert file.stat().st_size < 2_000_000
    assert family.name in file.with_suffix(".md").read_text(encoding="utf-8")
    card = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["made_by"] == Weights.load(file, family).made_by
    assert card["made_by"]["command"] == f"bilevel train-steps {file.stem}.yml"
    assert card["made_by"]["seconds"] < 1800.0


@pytest.mark.parametrize("variation", list(Variation))
@pytest.mark.parametrize(("family", "size"), SHIPPED)
def test_they_lead_to_the_classical_solution(family: Family, size: int, variation: Variation) -> None:
    instance = family.instance(size, 5_000_000, variation)
    networks = Weights.load(shipped(family), family).networks
    goal = Tolerance(relative=1e-9)
    solver = guess_solver(networks, lambda problem, params: instance.cellwise, goal, False, instance.path)
    outcome = solver.solve(instance.problem, instance.start, instance.params)
    expected = reference_solution(instance)
    assert expected is not None
    assert outcome.report.converged
    assert outcome.report.counts.inferences > 0
    found, lowest, first = (instance.problem.value(u, instance.params) for u in (outcome.u, expected, instance.start))
    assert float((found - lowest).abs()) < 1e-9 * float(first - lowest)
