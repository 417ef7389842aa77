"""The benchmark on a family whose outcome is known: who wins, who fails, who is dropped."""

import json
import re
import time
from dataclasses import replace

import pytest
import torch

from bilevel.acceleration.bench.bench_steps import bench_steps
from bilevel.acceleration.bench.budget import Budgeted, OverBudget
from bilevel.acceleration.bench.linear import quadratic_model
from bilevel.acceleration.bench.methods import BenchMethod, classical_methods
from bilevel.acceleration.bench.report import BenchSettings
from bilevel.acceleration.bench.run import run
from bilevel.acceleration.bench.statistics import Table, effort, summarise
from bilevel.acceleration.bench.table import table_text, text, to_json
from bilevel.acceleration.bench.trial import BenchTrial, attempt, threshold
from bilevel.acceleration.family import Family, Instance, Variation
from bilevel.problem import Energy
from bilevel.report import Counts, InputError
from bilevel.solvers import GradientDescent, Newton, Tolerance
from bilevel.solvers.steps import Constant
from physics.families.denoised_volumes import DenoisedVolumes
from physics.families.forchheimer import ForchheimerFlow
from physics.families.large_strain import LargeStrain
from physics.families.p_laplacian import PLaplacianFlow
from physics.families.power_law import PowerLawFlow


class Chain(Family):
    """Springs between neighbours with a quartic term, pulled at random."""

    name, version, training_size = "chain", 1, 8

    def instance(self, size, seed, variation=Variation.TRAINING):
        generator = torch.Generator().manual_seed(seed)
        force = torch.randn(size, generator=generator, dtype=torch.float64)

        def energy(u, params):
            stretch = torch.cat((u[:1], u.diff()))
            return (0.5 * stretch**2 + 0.25 * stretch**4).sum() - params @ u

        start = torch.zeros(size, dtype=torch.float64)
        problem = Energy(energy).for_unknown(start)
        return Instance(problem, force, start, f"{size} springs")


def slow(instance, tolerance):
    return _Sleepy(tolerance=tolerance)


def _work(seconds):
    """Time of the processor, which is what is measured."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


class _Sleepy(Newton):
    def solve(self, problem, u0, params, record=False):
        _work(0.2)
        return super().solve(problem, u0, params, record)


def fair_learned():
    return [BenchMethod("learned", {"": slow}, learned=True, training_seconds=10.0)]


def newton(instance, tolerance):
    return Newton(tolerance=tolerance)


def short_steps(instance, tolerance):
    return Newton(step=Constant(0.5), tolerance=tolerance)


def diverging(instance, tolerance):
    return GradientDescent(step=Constant(100.0), tolerance=tolerance, max_iterations=50)


QUICK = BenchSettings(instances=4, multiples=(2,), budget=2.0, tuning=2, linear=False)


@pytest.fixture(scope="module")
def report():
    classical = [
        BenchMethod("Newton", {"short": short_steps, "plain": newton}),
        BenchMethod("diverging", {"only": diverging}),
    ]
    learned = [BenchMethod("learned", {"": slow}, learned=True, training_seconds=10.0)]
    return run(Chain(), learned, settings=QUICK, classical=classical)


def test_tuning_picks_what_takes_least_work_and_drops_what_fails(report):
    assert report.tuned["Newton"] == "plain"
    assert [item.method for item in report.dropped] == ["diverging"]
    assert "solved none of the training instances" in report.dropped[0].reason


def test_settings_are_compared_by_failures_then_by_factorisations_then_gradients():
    def trials(solved, factorisations, residuals):
        return [
            BenchTrial("m", k, k < solved, 1.0, Counts(factorisations=factorisations, residuals=residuals), 0.0)
            for k in range(4)
        ]

    assert effort(trials(4, 9, 1)) == (0, 9.0)
    assert effort(trials(3, 2, 1)) > effort(trials(4, 9, 1)) > effort(trials(4, 8, 99))
    assert effort(trials(4, 0, 7)) == (0, 7.0)
    assert effort(trials(0, 1, 1)) == (4, float("inf"))


def test_what_turns_out_hopeless_is_dropped_after_a_first_look():
    def stuck_later(instance, tolerance):
        return (
            newton(instance, tolerance)
            if instance.start.numel() == Chain.training_size
            else diverging(instance, tolerance)
        )

    fair = [BenchMethod("Newton", {"plain": newton}), BenchMethod("stuck", {"": stuck_later})]
    found = run(Chain(), fair_learned(), replace(QUICK, instances=6, preview=2, hopeless=50.0), classical=fair)
    counts = {summary.method: summary.count for summary in found.tables[-1].summaries}
    assert counts == {"Newton": 6, "learned": 6, "stuck": 2}
    assert [item.method for item in found.dropped] == ["stuck"]
    assert "first 2 instances at 2x" in found.dropped[0].reason


def test_a_loss_is_printed_as_plainly_as_a_win(report):
    table = report.tables[-1]
    assert table.best_classical.method == "Newton"
    learned = next(s for s in table.summaries if s.method == "learned")
    assert table.against_best(learned).speedup < 1.0
    assert "learned LOSES" in text(report)
    assert "never" in text(report)  # a slower solve never pays for its training


def test_where_no_classical_method_arrives_the_verdict_says_so():
    solved = [BenchTrial("m", seed, True, 1.25, Counts(), 0.0) for seed in range(2)]
    stuck = [BenchTrial("c", seed, False, 2.0, Counts(), 0.0) for seed in range(2)]
    summaries = [summarise(BenchMethod("m", {}, learned=True), solved), summarise(BenchMethod("c", {}), stuck)]
    said = table_text(Table("t", 2, summaries, [*solved, *stuck]))
    assert "m takes 1.25 s where no classical method solves half of the instances" in said


def test_json_holds_every_trial(report):
    content = json.loads(to_json(report))
    assert content["family"] == "chain"
    trials = content["tables"][-1]["trials"]
    assert len(trials) == 8
    assert all(trial["solved"] and trial["counts"]["factorisations"] > 0 for trial in trials)


def test_all_methods_are_judged_by_the_same_residual():
    instance = Chain().instance(4, 1)
    goal = threshold(instance, 1e-4)
    for method in classical_methods():
        if (
            not method.applies(instance) or "AMG" in method.name
        ):  # multigrid wants a sparse matrix, which a chain is not
            continue
        variant = next(iter(method.variants))
        trial = attempt(method.chosen(variant), instance, 1, 1e-4, budget=20.0)
        assert trial.solved, (method.name, trial.reason)
        assert trial.residual <= 1.01 * goal


def test_what_does_not_converge_has_failed_and_costs_the_budget():
    trial = attempt(BenchMethod("diverging", {"": diverging}), Chain().instance(10, 1), 1, 1e-8, budget=3.0)
    assert not trial.solved
    assert trial.seconds == 3.0
    assert trial.reason


def test_every_method_has_the_same_patience_and_who_is_late_wins_nothing():
    instance = Chain().instance(10, 1)
    for learned in (True, False):
        method = BenchMethod("m", {"": slow}, learned=learned)
        late = attempt(method, instance, 1, 1e-8, budget=0.1, patience=50.0)
        assert late.solved
        assert late.late
        assert not attempt(method, instance, 1, 1e-8, budget=0.1, patience=1.0).solved
        stuck = BenchTrial("c", 1, False, 0.1, Counts(), float("nan"), "out of budget")
        table = Table("t", 1, [summarise(method, [late]), summarise(BenchMethod("c", {}), [stuck])], [late, stuck])
        assert table.summaries[0].late == 1.0
        assert table.against(*table.summaries).wins == 0.0


def test_a_timed_problem_offers_what_the_problem_offers():
    """Newton's method would lose its positive definite matrices, and its sense of scale, to the watch."""
    instance = LargeStrain().instance(60, 0)
    watched, u = Budgeted(instance.problem, 100.0), instance.start
    expected = instance.problem.definite_tangent(u, instance.params)
    assert torch.equal(watched.definite_tangent(u, instance.params).values, expected.values)
    assert torch.equal(watched.magnitude(u, instance.params), instance.problem.magnitude(u, instance.params))


@pytest.mark.parametrize(
    "family", [LargeStrain(), PowerLawFlow(), PLaplacianFlow(), DenoisedVolumes()], ids=lambda f: f.name
)
def test_shapes_that_were_never_trained_on_are_solved(family):
    for seed in range(2):
        instance = family.instance(100, seed, Variation.GEOMETRY)
        start = instance.start if instance.own_start is None else instance.own_start().u
        assert Newton(tolerance=Tolerance(1e-8)).solve(instance.problem, start, instance.params).report.converged


def test_a_problem_out_of_budget_says_so():
    instance = Chain().instance(10, 1)
    with pytest.raises(OverBudget):
        Budgeted(instance.problem, -1.0).residual(instance.start, instance.params)


def test_statistics_of_known_times():
    method = BenchMethod("m", {}, learned=True, training_seconds=100.0)
    classical = BenchMethod("c", {})
    ours = [BenchTrial("m", seed, True, 1.0, Counts(factorisations=2), 0.0) for seed in range(4)]
    theirs = [BenchTrial("c", seed, True, 3.0 if seed else 0.5, Counts(factorisations=9), 0.0) for seed in range(4)]
    table = Table("t", 4, [summarise(method, ours), summarise(classical, theirs)], [*ours, *theirs])
    compared = table.against_best(table.summaries[0])
    assert compared.speedup == pytest.approx(3.0)
    assert compared.wins == pytest.approx(0.75)
    assert compared.break_even == 73  # 100 s over a mean gain of 1.375 s
    failed = summarise(method, [*ours[:3], replace(ours[3], solved=False, seconds=50.0)])
    assert failed.failures == pytest.approx(0.25)
    assert failed.counts["factorisations"] == 2.0


def test_quadratic_model_is_solved_by_one_newton_step():
    instance = quadratic_model(Chain().instance(12, 3))
    outcome = Newton(tolerance=Tolerance(1e-12)).solve(instance.problem, instance.start, None)
    assert outcome.report.iterations == 1


def test_methods_are_measured_on_a_graph_from_tables(tmp_path):
    """A ladder of 2 x 12 nodes with a spur: its instances have its nodes, and flow from x = 0 to x = 1."""
    places = {f"n{i}{j}": (0.5 * i, j) for i in range(12) for j in range(2)} | {"spur": (2.0, 3.0), "alone": (9.0, 9.0)}
    along = [(f"n{i}{j}", f"n{i + 1}{j}") for i in range(11) for j in range(2)]
    edges = [*along, *((f"n{i}0", f"n{i}1") for i in range(12)), ("n41", "spur"), ("spur", "n41"), ("n00", "n00")]
    nodes_file, edges_file = tmp_path / "nodes.csv", tmp_path / "edges.csv"
    nodes_file.write_text("name,x,y\n" + "".join(f"{n},{x},{y}\n" for n, (x, y) in places.items()))
    edges_file.write_text("start,end\n" + "".join(f"{a},{b}\n" for a, b in edges))
    problem = ForchheimerFlow().on_graph(nodes_file, edges_file).instance(800, 1).problem
    assert (problem.graph.nodes, len(problem.graph.edges), problem.n) == (25, 35, 25 - 4)
    settings = BenchSettings(instances=3, budget=5.0, tuning=2)
    said = bench_steps("forchheimer", settings, against=["Newton, line search"], graphs=(nodes_file, edges_file))
    assert re.search(r"a given graph: 3 instances.*\n.*\nNewton, line search +0 %", said)
    for rows, sentence in (
        ("start,end\nn00,n0\n", r"edges.csv, line 2, column 'end': there is no node 'n0'; did you mean"),
        ("start,end\nn00,n00\n", "no edge joins two nodes"),
    ):
        edges_file.write_text(rows)
        with pytest.raises(InputError, match=sentence):
            bench_steps("forchheimer", settings, graphs=(nodes_file, edges_file))
    with pytest.raises(InputError, match="on no graphs; those of power_law and forchheimer are"):
        bench_steps("large_strain", settings, graphs=(nodes_file, edges_file))


def test_what_is_given_a_neighbours_solution_is_no_classical_method():
    instance = LargeStrain().instance(60, 0)
    method = next(method for method in classical_methods() if method.given is not None)
    trial = attempt(method, instance, 1, 1e-8, budget=20.0)
    assert trial.solved
    assert 1 <= trial.counts.factorisations <= 4
    cold = BenchTrial("cold", 1, True, 2.0 * trial.seconds, Counts(), 0.0)
    table = Table("t", 1, [summarise(method, [trial]), summarise(BenchMethod("cold", {}), [cold])], [trial, cold])
    assert table.best_classical.method == "cold"
