"""Increments by bare Newton steps: what they find is what the safeguarded solver finds, and memory shortens the way there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bilevel.implicit.memory import Memory, visiting
from bilevel.implicit.step_guesses import StepGuesses
from bilevel.implicit.visit import next_spot
from bilevel.report import Counts
from physics.constitutive.inelastic.hypoplastic import Hypoplastic
from physics.constitutive.mandel import axisymmetric
from physics.soil import increment_newton
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ControlledIncrement, ElementTest, IncrementSchedule, LoadStage, March
from physics.soil.sensitivity import sensitive_march

SAND = {
    "friction_angle": 0.576, "granular_hardness": 1e9, "hardness_exponent": 0.25, "void_ratio_min": 0.55,
    "void_ratio_critical": 0.95, "void_ratio_max": 1.05, "pyknotropy": 0.25, "barotropy": 1.5,
}  # fmt: skip
STRETCH = torch.tensor(list(SAND.values()), dtype=torch.float64)
CONTROL = Control((Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL))
SCHEDULE = IncrementSchedule.of(
    [
        ElementTest(name, (LoadStage(CONTROL, torch.tensor([[-0.02, -1e5], [-0.05, -1e5]], dtype=torch.float64), 6),))
        for name in ("one", "two")
    ]
)
START = torch.cat(
    [
        axisymmetric(torch.tensor([-1e5, -1e5]), torch.tensor([-1e5, -1e5])).double(),
        torch.tensor([[0.65], [0.75]], dtype=torch.float64),
    ],
    1,
)


def marched(scale: Tensor) -> March:
    params = dict(zip(SAND, (STRETCH * scale).unbind()))
    return sensitive_march(Hypoplastic(), params, lambda _: START, SCHEDULE)


def states(scale: Tensor) -> Tensor:
    return marched(scale).states / 1e5


def with_slopes(scale: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Counts]:
    """States, their derivatives, and the work."""
    work = Counts()

    def function(scale: Tensor) -> Tensor:
        with visiting("sand", scale, tuple(SAND)):
            march = marched(scale)
            work.add(march.counts)
            return march.states / 1e5

    with memory.remembering():
        found, slopes = torch.vmap(lambda v: torch.func.jvp(function, (scale,), (v,)))(torch.eye(8).double())
    return found[0], slopes, work


def test_what_newton_leaves_to_the_safeguarded_solver_is_the_same(monkeypatch):
    one = torch.ones(8, dtype=torch.float64)
    quick, slopes = states(one), torch.func.jacrev(states)(one)
    monkeypatch.setattr(increment_newton, "STEPS", 0)
    torch.testing.assert_close(states(one), quick, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.func.jacrev(states)(one), slopes, rtol=1e-7, atol=1e-7)


def test_a_step_is_predicted_from_its_own_old_state_and_from_several_points_to_third_order():
    """Points and target shrink together towards the first point; old states drift as far as they do."""
    one = torch.ones(8, dtype=torch.float64)
    away = 0.02 * torch.tensor([1.0, -1.0, 1.0, 0.5, -0.5, 0.5, 1.0, -1.0]).double()
    errors = []
    for h in (1.0, 0.5):
        missed = []
        for count in (1, 2):
            memory = Memory()
            for k in range(count):
                with_slopes(one + 1.5 * k * h * away, memory)
            with memory.consulted(), visiting("sand", one + h * away, tuple(SAND)):
                spot = next_spot()
            guesses = StepGuesses.remembered(spot, (len(SCHEDULE), 2, 13))
            assert guesses is not None
            truth = marched(one + h * away)
            full = torch.cat([truth.states, truth.strains], -1)
            units = ControlledIncrement(Hypoplastic(), SCHEDULE, 0).units
            found = torch.stack([guesses.after(k, full[k]) for k in range(len(SCHEDULE))])
            missed.append(float((found - full[1:] / units).norm()))
        errors.append(missed)
    assert errors[0][0] / errors[1][0] == pytest.approx(4.0, rel=0.2)
    assert errors[0][1] / errors[1][1] == pytest.approx(8.0, rel=0.3)
    assert errors[1][1] < 0.2 * errors[1][0]


def test_memory_saves_steps_and_changes_nothing():
    one = torch.ones(8, dtype=torch.float64)
    moved = one + 1e-3 * torch.tensor([1.0, -1.0, 1.0, 0.5, -0.5, 0.5, 1.0, -1.0]).double()
    memory = Memory()
    _, _, cold = with_slopes(one, memory)
    warm_states, warm_slopes, warm = with_slopes(moved, memory)
    assert warm.back_substitutions <= 0.5 * cold.back_substitutions
    assert warm.fallbacks == cold.fallbacks == 0
    cold_states, cold_slopes, _ = with_slopes(moved, Memory(points=0))
    torch.testing.assert_close(warm_states, cold_states, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(warm_slopes, cold_slopes, rtol=1e-8, atol=1e-8)


def test_no_steps_where_the_machine_asks_for_what_newton_cannot_find():
    """NaN ends the attempt at once, and the safeguarded solver says which test and row it was."""
    problem = ControlledIncrement(Hypoplastic(), SCHEDULE, 0)
    full = torch.cat([START, torch.zeros(2, 6, dtype=torch.float64)], 1)
    theta = STRETCH.clone()
    named = lambda flat: dict(zip(SAND, flat.unbind(-1)))  # noqa: E731
    nowhere = torch.full_like(full, torch.nan)
    assert (
        increment_newton.solve_quickly(problem, named, nowhere, nowhere.expand(2, -1, -1), full, theta, Counts())
        is None
    )
