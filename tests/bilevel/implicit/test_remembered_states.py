"""Inner solves from remembered states: fewer iterations, the same solutions, and the classical solve where they mislead."""

from __future__ import annotations

import pytest
import torch

import bilevel
from bilevel.implicit.chain import chain
from bilevel.implicit.memory import Memory, visiting
from bilevel.solvers import LoadStepping, Newton, Tolerance
from bilevel.solvers.warm_start import WarmStart

SIZE = 12
CHAIN = 2 * torch.eye(SIZE, dtype=torch.float64) - torch.diag(torch.ones(SIZE - 1, dtype=torch.float64), 1)
CHAIN = 0.5 * (CHAIN + CHAIN.T)


def energy(u, p):
    return 0.5 * p["k"] * (u @ CHAIN @ u) + 0.25 * p["a"] * (u**4).sum() - u.sum()


class Model:
    """A nonlinear chain of springs with parameters (ln k, ln a); keeps the reports of its solves."""

    def __init__(self, solver=None):
        self.solver, self.reports = solver, []

    def __call__(self, x):
        solution = bilevel.argmin(
            energy, torch.zeros(SIZE, dtype=torch.float64), {"k": x[0].exp(), "a": x[1].exp()}, solver=self.solver
        )
        self.reports.append(solution.report)
        return solution.u


def visited(memory, model, x, jacobian=True, frame=("k", "a")):
    """The model at x as a calibration evaluates it, with its Jacobian by forward mode."""

    def function(x):
        with visiting("model", x, frame):
            return model(x)

    with memory.remembering():
        if not jacobian:
            with torch.no_grad():
                return function(x), None
        values, columns = torch.vmap(lambda v: torch.func.jvp(function, (x,), (v,)))(torch.eye(len(x), dtype=x.dtype))
    return values[0], columns.movedim(0, -1)


def at(*x):
    return torch.tensor(x, dtype=torch.float64)


def test_tangents_are_those_of_the_jacobian_and_predict_to_second_order():
    memory, model, x = Memory(), Model(), at(0.3, 0.5)
    _, jacobian = visited(memory, model, x)
    solve = memory.evaluations[-1]["model"].solves[0,]
    torch.testing.assert_close(solve.tangent.T, jacobian)
    direction, errors = at(1.0, -0.7), []
    for h in (0.1, 0.05):
        predicted = solve.state + jacobian @ (h * direction)
        errors.append(float((predicted - Model()(x + h * direction)).norm()))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_several_tangents_predict_to_third_order():
    """Points and target shrink together towards the first point; errors of the first guess fall with the cube."""
    x, rest, errors = at(0.3, 0.5), torch.zeros(SIZE, dtype=torch.float64), []
    for h in (0.2, 0.1):
        memory = Memory()
        for shift in (at(0.0, 0.0), at(1.0, 0.2), at(-0.3, 1.0)):
            visited(memory, Model(), x + h * shift)
        target = x + h * at(0.4, -0.4)
        guesses, exact = memory.visit("model", target, ("k", "a")).guesses((0,), rest)
        assert not exact
        sought = Model()(target)
        errors.append([float((guess - sought).norm()) for guess in guesses])
    assert errors[0][0] / errors[1][0] == pytest.approx(8.0, rel=0.25)
    assert errors[0][1] / errors[1][1] == pytest.approx(4.0, rel=0.15)
    assert errors[1][0] < 0.2 * errors[1][1]


def test_where_points_do_not_spread_their_tangents_add_nothing_wild():
    memory, x = Memory(), at(0.3, 0.5)
    for shift in (0.0, 0.1, 0.2):
        visited(memory, Model(), x + at(shift, 0.0))
    target = x + at(0.1, 0.05)
    guesses, _ = memory.visit("model", target, ("k", "a")).guesses((0,), torch.zeros(SIZE, dtype=torch.float64))
    sought = Model()(target)
    assert float((guesses[0] - sought).norm()) <= 1.5 * float((guesses[1] - sought).norm())


def test_the_next_solve_takes_fewer_factorisations_and_finds_the_same():
    memory, model, x = Memory(), Model(), at(0.3, 0.5)
    visited(memory, model, x)
    for _ in range(3):
        x = x + 0.05
        u, _ = visited(memory, model, x)
        torch.testing.assert_close(u, Model()(x), rtol=1e-9, atol=1e-10)
    cold, *warm = model.reports
    assert all(report.counts.warm_starts == 1 and report.counts.fallbacks == 0 for report in warm)
    assert max(report.counts.factorisations for report in warm) <= 2 < cold.counts.factorisations


def test_a_warm_state_is_known_far_better_than_the_tolerance():
    """Else the predictions would carry noise of the size of the inner tolerance."""
    memory, x = Memory(), at(0.3, 0.5)
    loose, tight = (Model(Newton(tolerance=Tolerance(t))) for t in (1e-4, 1e-14))
    visited(memory, loose, x)
    for step in (1e-2, 1e-3, 1e-4, 1e-5):
        x = x + step
        u, _ = visited(memory, loose, x)
        assert float((u - tight(x)).norm() / u.norm()) < 1e-8


def test_the_same_point_again_is_the_same_state_without_an_iteration():
    memory, model, x = Memory(), Model(), at(0.3, 0.5)
    first, _ = visited(memory, model, x)
    second, _ = visited(memory, model, x, jacobian=False)
    assert torch.equal(first, second)
    assert model.reports[-1].iterations == 0


def test_without_tangents_the_last_state_starts():
    memory, model, x = Memory(), Model(), at(0.3, 0.5)
    visited(memory, model, x, jacobian=False)
    visited(memory, model, x + 0.01, jacobian=False)
    assert model.reports[-1].counts.warm_starts == 1
    assert model.reports[-1].counts.factorisations < model.reports[0].counts.factorisations


def test_without_tangents_several_states_predict_to_second_order():
    x, rest, errors = at(0.3, 0.5), torch.zeros(SIZE, dtype=torch.float64), []
    for h in (0.2, 0.1):
        memory = Memory()
        for shift in (at(0.0, 0.0), at(1.0, 0.2), at(-0.3, 1.0)):
            visited(memory, Model(), x + h * shift, jacobian=False)
        target = x + h * at(0.4, 0.3)
        guesses, exact = memory.visit("model", target, ("k", "a")).guesses((0,), rest)
        assert not exact
        errors.append([float((guess - Model()(target)).norm()) for guess in guesses])
    assert errors[0][0] / errors[1][0] == pytest.approx(4.0, rel=0.2)
    assert errors[0][1] / errors[1][1] == pytest.approx(2.0, rel=0.15)
    assert errors[1][0] < 0.2 * errors[1][1]


def test_tangents_of_other_coordinates_are_not_used():
    memory, model, x = Memory(), Model(), at(0.3, 0.5)
    visited(memory, model, x)
    u, _ = visited(memory, model, x + 0.1, frame=("a", "k"))
    torch.testing.assert_close(u, Model()(x + 0.1), rtol=1e-9, atol=1e-10)


def test_a_failed_evaluation_is_not_remembered():
    memory = Memory()

    def fails(x):
        Model()(x)
        return Model(Newton(max_iterations=1))(x)

    with pytest.raises(bilevel.ConvergenceError):
        visited(memory, fails, at(0.3, 0.5))
    assert memory.evaluations == []


def test_what_is_only_consulted_changes_nothing():
    memory, model, x = Memory(), Model(), at(0.3, 0.5)
    visited(memory, model, x)
    before = list(memory.evaluations)
    with memory.consulted(), visiting("model", x + 0.01, ("k", "a")):
        model(x + 0.01)
    assert memory.evaluations == before
    assert model.reports[-1].counts.warm_starts == 1


def test_memory_is_bounded():
    memory, model = Memory(points=3), Model()
    for k in range(5):
        visited(memory, model, at(0.3 + 0.1 * k, 0.5), jacobian=False)
    assert [float(one["model"].x[0]) for one in memory.evaluations] == pytest.approx([0.5, 0.6, 0.7])
    state = 8 * SIZE  # bytes; one evaluation may take half of all room, and has a tangent of two states if that fits
    for room, kept, tangent in ((4 * state, 4, False), (6 * state, 2, True), (state, 0, False)):
        memory = Memory(megabytes=room / 2**20)
        for k in range(4 if kept > 2 else 3):
            visited(memory, model, at(0.3 + 0.1 * k, 0.5))
        assert len(memory.evaluations) == kept
        assert all((one["model"].solves[0,].tangent is not None) is tangent for one in memory.evaluations)


def test_load_steps_are_skipped_near_a_known_state():
    def path(params, fraction):
        return {**params, "load": fraction * params["load"]}

    def bar(u, p):  # a snap-free hardening spring chain under a large load
        return 0.5 * (u @ CHAIN @ u) + 0.25 * p["a"] * (u**4).sum() - p["load"] * u.sum()

    solver, reports = LoadStepping(path, Newton(max_iterations=8), first=0.1, predict=True), []

    def model(x):
        given = {"a": x[0].exp(), "load": x[1].exp()}
        solution = bilevel.argmin(bar, torch.zeros(SIZE, dtype=torch.float64), given, solver=solver)
        reports.append(solution.report)
        return solution.u

    memory, x = Memory(), at(0.0, 4.0)
    visited(memory, model, x)
    u, _ = visited(memory, model, x + 0.02)
    assert reports[0].counts.factorisations > 10
    assert reports[1].counts.factorisations <= 2
    torch.testing.assert_close(u, model(x + 0.02), rtol=1e-9, atol=1e-10)


class TestFallback:
    """A double well (u^2 - 1)^2 / 4 - f u, whose left minimum ends at f = 0.385."""

    @staticmethod
    def solve(memory, f, solver=None, start=-1.0):
        def well(u, p):
            return 0.25 * (u**2 - 1).square().sum() - p * u.sum()

        found = []

        def model(x):
            found.append(bilevel.argmin(well, at(start), x[0], solver=solver))
            return found[-1].u

        visited(memory, model, at(f), frame=("f",))
        return found[-1]

    def test_beyond_the_end_of_a_branch_the_given_start_decides(self):
        memory = Memory()
        self.solve(memory, 0.37)
        warm = self.solve(memory, 0.6)
        cold = self.solve(Memory(), 0.6)
        torch.testing.assert_close(warm.u, cold.u, rtol=1e-9, atol=0.0)

    def test_a_guess_of_more_energy_is_not_followed(self):
        """From the right well remembered, where the given start lies in the deeper left one."""
        memory = Memory()
        self.solve(memory, -0.1, start=1.0)
        warm = self.solve(memory, -0.2, start=-1.2)
        assert float(warm.u) < 0
        assert warm.report.counts.warm_starts == 0

    @pytest.mark.parametrize("guess", [1.0, 1.05])
    def test_a_guess_that_leads_nowhere_is_given_up(self, guess):
        """A residual that almost vanishes at 1, and does at -5."""
        residual = bilevel.Residual(lambda u: ((u - 1) ** 2 + 0.01) * (u + 5) / 10)
        ready = residual.for_unknown(at(0.0))
        outcome = WarmStart(Newton(), [at(guess)]).solve(ready, at(-4.0), None)
        assert outcome.report.converged
        assert float(outcome.u) == pytest.approx(-5.0)
        assert outcome.report.counts.fallbacks == outcome.report.counts.warm_starts == 1
        assert any("remembered state" in note for note in outcome.report.notes)

    def test_a_solver_that_fails_from_the_guess_starts_again(self):
        memory, model = Memory(), Model(Newton(max_iterations=8))
        x = at(0.3, 0.5)
        visited(memory, model, x)
        remembered = memory.evaluations[-1]["model"].solves[0,]
        remembered.state += 1e8  # spoilt
        remembered.tangent = None
        u, _ = visited(memory, model, x + 0.1)
        torch.testing.assert_close(u, Model()(x + 0.1), rtol=1e-9, atol=1e-10)


class TestChains:
    LOADS = torch.linspace(0.2, 3.0, 7, dtype=torch.float64)

    def model(self, reports):
        def step(old, params, load, start):
            def residual(u, p):
                return p[0].exp() * (u - p[2]) + p[1].exp() * u**3 - p[3]

            solution = bilevel.root(residual, start, (params[0], params[1], old, load))
            reports.append(solution.report)
            return solution.u

        return lambda x: chain(step, torch.zeros(4, dtype=torch.float64), x, self.LOADS).observed.reshape(-1)

    def cold(self, x):
        return self.model([])(x)

    @pytest.mark.parametrize(("forward", "share"), [(True, 0.35), (False, 0.5)])
    def test_steps_start_from_those_of_the_evaluation_before(self, forward, share):
        memory, x = Memory(), at(0.1, 0.4)
        first, second = [], []
        visited(memory, self.model(first), x, jacobian=forward)
        u, _ = visited(memory, self.model(second), x + 0.02, jacobian=forward)
        torch.testing.assert_close(u, self.cold(x + 0.02), rtol=1e-8, atol=1e-10)
        tangents = [sum(report.counts.tangents for report in reports) for reports in (first, second)]
        assert tangents[1] <= share * tangents[0]

    def test_the_way_back_through_a_chain_finds_the_states_of_the_way_forward(self):
        memory, x = Memory(), at(0.1, 0.4).requires_grad_()
        reports = []
        model = self.model(reports)
        with memory.remembering(), visiting("model", x, ("a", "b")):
            u = model(x)
        forward = len(reports)
        (gradient,) = torch.autograd.grad(u.square().sum(), x)
        assert len(reports) > forward
        assert sum(report.iterations for report in reports[forward:]) == 0
        expected = torch.func.jacrev(lambda x: self.cold(x).square().sum())(x.detach())
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)


def test_solves_inside_a_solve_have_no_place():
    """A law that solves a local problem inside the residual would shift the places of all that follows."""
    memory = Memory()

    def residual(u, p):
        inside = bilevel.root(lambda v, q: v + v**3 - q, torch.zeros_like(u), u).u
        return u + inside - p

    def function(x):
        with visiting("model", x, ("p",)):
            return bilevel.root(residual, torch.zeros(1, dtype=torch.float64), x).u

    with memory.remembering(), torch.no_grad():
        function(at(1.0))
    assert list(memory.evaluations[-1]["model"].solves) == [(0,)]


def test_a_batch_takes_the_better_start_sample_by_sample():
    memory = Memory()

    def residual(u, p):
        return u**3 + u - p[0] * p[1]

    loads = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    problem = bilevel.Residual(residual, batch_dims=1)

    def model(x):
        return bilevel.root(problem, torch.zeros(2, 1, dtype=torch.float64), (x[0], loads)).u

    visited(memory, model, at(1.0), frame=("p",))
    solve = memory.evaluations[-1]["model"].solves[0,]
    solve.state[1] = torch.inf  # spoilt for one of them
    u, _ = visited(memory, model, at(1.1), frame=("p",))
    torch.testing.assert_close(u**3 + u, 1.1 * loads, rtol=1e-9, atol=0.0)
