"""The benchmark on a family whose outcome is known: who wins, who fails, who is dropped."""

import json
import time
from dataclasses import replace

import pytest
import torch

from bilevel.acceleration.bench import BenchMethod, BenchSettings, classical_methods, run, text, to_json
from bilevel.acceleration.bench.budget import Budgeted, OverBudget
from bilevel.acceleration.bench.linear import quadratic_model
from bilevel.acceleration.bench.statistics import Table, summarise
from bilevel.acceleration.bench.table import table_text
from bilevel.acceleration.bench.trial import BenchTrial, attempt, threshold
from bilevel.acceleration.family import Family, Instance, NodeGraph, Variation
from bilevel.problem import Energy
from bilevel.report import Counts
from bilevel.solvers import GradientDescent, Newton, Tolerance
from bilevel.solvers.steps import Constant


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
        edges = torch.stack((torch.arange(size - 1), torch.arange(1, size)))
        none = torch.empty(size, 0), torch.empty(size - 1, 0)
        graph = NodeGraph(edges, *none, torch.arange(size), lambda u: u[:, None])
        problem = Energy(energy).for_unknown(start)
        return Instance(problem, force, start, graph, f"{size} springs")


def slow(instance, tolerance):
    return _Sleepy(tolerance=tolerance)


class _Sleepy(Newton):
    def solve(self, problem, u0, params, record=False):
        time.sleep(0.2)
        return super().solve(problem, u0, params, record)


def fair_learned():
    return [BenchMethod("learned", {"": slow}, learned=True, training_seconds=10.0)]


def newton(instance, tolerance):
    return Newton(tolerance=tolerance)


def diverging(instance, tolerance):
    return GradientDescent(step=Constant(100.0), tolerance=tolerance, max_iterations=50)


QUICK = BenchSettings(instances=4, multiples=(2,), budget=2.0, tuning=2, linear=False)


@pytest.fixture(scope="module")
def report():
    classical = [BenchMethod("Newton", {"slow": slow, "plain": newton}), BenchMethod("diverging", {"only": diverging})]
    learned = [BenchMethod("learned", {"": slow}, learned=True, training_seconds=10.0)]
    return run(Chain(), learned, settings=QUICK, classical=classical)


def test_tuning_picks_the_faster_variant_and_drops_what_fails(report):
    assert report.tuned["Newton"] == "plain"
    assert [item.method for item in report.dropped] == ["diverging"]
    assert "solved none of the training instances" in report.dropped[0].reason


def test_what_turns_out_hopeless_is_dropped_after_a_first_look():
    fair = [BenchMethod("Newton", {"plain": newton})]
    own = [BenchMethod("no network", {"": slow}, unlearned=True), BenchMethod("stuck", {"": diverging})]
    found = run(Chain(), fair_learned(), own, replace(QUICK, instances=6, preview=2, hopeless=50.0), classical=fair)
    counts = {summary.method: summary.count for summary in found.tables[-1].summaries}
    assert counts == {"Newton": 6, "learned": 6, "no network": 6, "stuck": 2}
    assert [item.method for item in found.dropped] == ["stuck"]
    assert "first 2 instances at 2x" in found.dropped[0].reason


def test_what_a_network_adds_is_told_apart_from_what_it_rests_on():
    fair = [BenchMethod("Newton", {"plain": newton})]
    own = [BenchMethod("no network", {"": slow}, unlearned=True)]
    found = run(Chain(), fair_learned(), own, QUICK, classical=fair)
    assert found.tables[-1].best_classical.method == "Newton"
    said = text(found)
    assert "LOSES" in said.split("of Newton (medians)")[0]
    assert "times as fast as no network" in said or "times the time of no network" in said


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
        if method.stepped or "AMG" in method.name:  # multigrid wants a sparse matrix, which a chain of springs is not
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


def test_a_guarded_method_may_be_late_but_wins_nothing_by_it():
    instance = Chain().instance(10, 1)
    guarded = BenchMethod("learned", {"": slow}, learned=True, guarded=True)
    for method, solved in ((guarded, True), (replace(guarded, guarded=False), False)):
        trial = attempt(method, instance, 1, 1e-8, budget=0.1, patience=50.0)
        assert trial.solved is trial.late is solved
    late = attempt(guarded, instance, 1, 1e-8, budget=0.1, patience=50.0)
    stuck = BenchTrial("c", 1, False, 0.1, Counts(), float("nan"), "out of budget")
    table = Table("t", 1, [summarise(guarded, [late]), summarise(BenchMethod("c", {}), [stuck])], [late, stuck])
    assert table.summaries[0].late == 1.0
    assert table.against(*table.summaries).wins == 0.0


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
