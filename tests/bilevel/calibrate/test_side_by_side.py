"""The experiments of an evaluation on workers: the same answer, bit for bit, and the same trouble."""

from __future__ import annotations

from concurrent.futures import Executor, Future

import numpy as np
import pytest
import torch

import bilevel
from bilevel.calibrate import Parameter, Settings, Workers, calibrate
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.executors import SerialExecutor
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.function_problem import FunctionModel
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Method
from bilevel.report import BilevelError

LOADS = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)
SETTINGS = Settings(verify=False, noptmax=3)
APART = Workers(SerialExecutor())
"""All goes through requests and answers, in this process."""


def energy(u, p):
    return p["stiffness"] * (torch.cosh(u) - 1).sum() + 0.25 * p["hardening"] * (u**4).sum() - (p["load"] * u).sum()


def springs(factor):
    def simulate(parameters):
        own = {name: parameters[name] for name in ("stiffness", "hardening")}
        return bilevel.argmin(energy, torch.zeros(6, dtype=torch.float64), {**own, "load": factor * LOADS}).u

    return simulate


def problem(model=springs, start=1.0):
    experiments, truth = [], {"stiffness": torch.tensor(3.0).double(), "hardening": torch.tensor(0.4).double()}
    for k in range(3):
        value = springs(1.0 + k)(truth).detach() + 0.01 * torch.sin(9.0 * torch.arange(6) + k)
        weight = torch.full((6,), 10.0, dtype=torch.float64)
        weight[k] = 0.0
        table = ObservationTable(value, weight, (f"test {k}",) * 6)
        experiments.append(Experiment(f"test {k}", FunctionModel(table, model(1.0 + k)), table))
    parameters = [
        Parameter("stiffness", start, transform="log"),
        *(Parameter("hardening", 2.0, transform="log", experiments=(f"test {k}",)) for k in range(3)),
    ]
    return CalibrationProblem(parameters, experiments)


def fitted(given=None, **how):
    return calibrate(given or problem(), on_fail="ignore", **{"settings": SETTINGS, **how})


def same(one, other):
    np.testing.assert_array_equal(one.evaluation.t, other.evaluation.t)
    np.testing.assert_array_equal(one.evaluation.prediction, other.evaluation.prediction)
    np.testing.assert_array_equal(one.evaluation.jacobian, other.evaluation.jacobian)
    assert one.counts == other.counts
    assert (one.status, one.inner_solves, one.evaluations) == (other.status, other.inner_solves, other.evaluations)


@pytest.mark.parametrize("memory", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_experiments_on_workers_find_what_they_find_here(memory):
    settings = Settings(verify=False, memory=memory, noptmax=3)
    journals = Journal(), Journal()
    here = fitted(settings=settings, journal=journals[0])
    apart = fitted(settings=settings, journal=journals[1], workers=APART)
    same(here, apart)
    assert apart.failed == []
    assert [len(journal.memory.evaluations) for journal in journals] == [apart.evaluations * memory] * 2


@pytest.mark.slow
def test_gradients_alone_come_from_workers_too():
    settings = Settings(verify=False, statistics=False, method=Method.LBFGSB, noptmax=2)
    here, apart = (fitted(settings=settings, workers=w) for w in (Workers(), APART))
    np.testing.assert_array_equal(here.evaluation.t, apart.evaluation.t)


def test_a_run_cut_off_goes_on_on_workers(tmp_path):
    whole = fitted(workers=APART)
    Journal.create(tmp_path / "journal", {})
    cut = Settings(verify=False, noptmax=1)
    fitted(settings=cut, journal=Journal(tmp_path / "journal"), workers=APART)
    resumed = fitted(journal=Journal(tmp_path / "journal"), workers=APART)
    same(whole, resumed)


def fragile(factor):
    def simulate(parameters):
        if factor == 2.0 and parameters["stiffness"] > 3.2:
            raise BilevelError("the spring breaks")
        return springs(factor)(parameters)

    return simulate


def test_a_model_that_fails_on_a_worker_is_stepped_back_from():
    here, apart = (fitted(problem(fragile, start=0.2), workers=w) for w in (Workers(), APART))
    np.testing.assert_array_equal(here.evaluation.t, apart.evaluation.t)
    assert [(f.experiment, f.first) for f in apart.failed] == [(f.experiment, f.first) for f in here.failed]
    assert apart.failed[0].experiment == "test 1"
    assert apart.failed[0].first == "the spring breaks"


def test_at_the_start_the_error_is_the_models_own():
    with pytest.raises(BilevelError, match=r"^the spring breaks$"):
        calibrate(problem(fragile, start=5.0), settings=SETTINGS, workers=APART)


class Dying(Executor):
    """Workers that die at some of the calls."""

    def __init__(self, deaths):
        self.calls, self.deaths = 0, deaths

    def submit(self, function, /, *args, **kwargs):
        self.calls += 1
        if self.calls not in self.deaths:
            return SerialExecutor().submit(function, *args, **kwargs)
        future = Future()
        future.set_exception(OSError("killed"))
        return future


def test_a_worker_that_dies_is_replaced():
    same(fitted(), fitted(workers=Workers(Dying({2, 9}))))


@pytest.mark.slow
def test_where_workers_die_again_the_point_is_evaluated_here():
    apart = fitted(workers=Workers(Dying(set(range(1, 99)))))
    assert apart.failed[0].first == "experiment 'test 0': its worker died twice: OSError: killed"
    np.testing.assert_allclose(apart.evaluation.t, fitted().evaluation.t, rtol=1e-6)
