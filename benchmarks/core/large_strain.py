"""Rubber bars pulled, bent and sheared in one step: the default solver against load stepping."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import bilevel
from benchmarks.record import Record, at_most, median, stated
from bilevel.acceleration.bench.trial import warm_up
from bilevel.acceleration.family import Instance
from bilevel.problem import Params
from bilevel.report import SolveReport
from bilevel.solvers import LoadStepping, Newton, Tolerance
from bilevel.solvers.solver import Solver
from physics.families.large_strain import LargeStrain

LINE = "neo-Hookean bars of 2,400 nodes stretched to 1.5 to 3, bent, sheared: default solver against load stepping"
DURATION = "30 minutes"
COUNT = 100
TOLERANCE = Tolerance(1e-8)


def default(instance: Instance) -> SolveReport:
    assert instance.own_start is not None
    start = instance.own_start()
    report = solved(instance, start.u, Newton(tolerance=TOLERANCE, max_iterations=200))
    report.counts.add(start.counts)
    return report


def stepped(steps: int, predict: bool) -> Callable[[Instance], SolveReport]:
    def run(instance: Instance) -> SolveReport:
        path: Callable[[Params, float], Params] | None = instance.path
        assert path is not None
        newton = Newton(tolerance=TOLERANCE, max_iterations=25)
        solver = LoadStepping(path, newton, first=1.0 / steps, predict=predict, from_rest=True)
        return solved(instance, torch.zeros_like(instance.start), solver)

    return run


def solved(instance: Instance, start: torch.Tensor, solver: Solver) -> SolveReport:
    return bilevel.argmin(instance.problem, start, instance.params, solver=solver, on_fail="ignore").report


def run(quick: bool) -> list[Record]:
    family, count, size = LargeStrain(), 4 if quick else COUNT, 600 if quick else 2400
    methods = {
        "default": default,
        "4 load steps": stepped(4, predict=False),
        "4 load steps with predictor": stepped(4, predict=True),
        "8 load steps with predictor": stepped(8, predict=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    factorisations: dict[str, list[float]] = {name: [] for name in methods}
    failed = dict.fromkeys(methods, 0)
    for seed in range(count):
        instance = family.instance(size, seed)
        warm_up(instance)
        for name, method in methods.items():
            began = time.process_time()
            try:
                report = method(instance)
                converged, spent = report.converged, report.counts.factorisations
            except bilevel.BilevelError:
                converged, spent = False, 0
            seconds[name].append(time.process_time() - began)
            factorisations[name].append(spent)
            failed[name] += not converged
    rows = []
    for name in methods:
        rows += [
            stated(f"{name}: processor time, median", median(seconds[name]), "s"),
            stated(f"{name}: factorisations, median", median(factorisations[name])),
            at_most(f"{name}: failures of {count}", failed[name], 0)
            if name == "default"
            else stated(f"{name}: failures of {count}", failed[name]),
        ]
    best = min(median(seconds[name]) for name in methods if name != "default")
    return [
        *rows,
        at_most("default / best number of load steps, processor time", median(seconds["default"]) / best, 0.5),
    ]
