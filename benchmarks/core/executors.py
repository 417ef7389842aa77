"""64 starts of a problem with many minima, serially and on workers: the same results, and how much sooner; what a task costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch

from benchmarks.record import Record, at_least, at_most, median, stated
from bilevel.calibrate import (
    CalibrationProblem,
    Parameter,
    Settings,
    Starts,
    Workers,
    calibrate,
    multistart,
    problem_from_function,
)
from bilevel.calibrate.fit.executors import run_tasks

LINE = "64 starts on one and two workers, processes and dask: identical, speed-up of two workers, cost of a task"
DURATION = "5 minutes"
SETTINGS = Settings(verify=False, statistics=False)
TIMES = torch.linspace(0.0, 10.0, 400, dtype=torch.float64)
STEPS = 400
"""Enough arithmetic that a start takes about a second."""
MANY = 10_000
"""Likewise for one evaluation of one experiment with its derivatives."""


def swinging(p: Mapping[str, torch.Tensor], steps: int = STEPS) -> torch.Tensor:
    """A damped swing whose frequency can be missed by whole turns, summed over many slightly different ones."""
    detuned = p["frequency"] * (1 + 1e-3 * torch.linspace(-1, 1, steps, dtype=torch.float64)).unsqueeze(1)
    return (p["size"] * torch.exp(-p["damping"] * TIMES) * torch.cos(detuned * TIMES)).mean(0)


def problem(model: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] = swinging) -> CalibrationProblem:
    free = [
        Parameter("size", 1.0, 0.1, 5.0),
        Parameter("damping", 0.3, 0.01, 1.0),
        Parameter("frequency", 2.0, 0.5, 60.0),
    ]
    truth = {"size": torch.tensor(2.0), "damping": torch.tensor(0.15), "frequency": torch.tensor(23.7)}
    return problem_from_function(free, model, swinging(truth) + 0.02 * torch.sin(77.0 * TIMES))


def timed(workers: Workers, starts: int) -> tuple[float, list[tuple[int, float, str]]]:
    """Seconds, and what each start ended at."""
    began = time.perf_counter()
    found = multistart(problem(), Starts(starts), settings=SETTINGS, workers=workers)
    return time.perf_counter() - began, [(o.number, o.phi, repr(o.values)) for o in found]


def experiments() -> CalibrationProblem:
    """Four experiments like the one, each with a size of its own."""
    whole = problem(partial(swinging, steps=MANY))
    (one,) = whole.experiments
    size, *others = whole.parameters.parameters
    names = [f"test {k}" for k in range(4)]
    own = [replace(size, experiments=(name,)) for name in names]
    others = [replace(p, lower=0.9 * v, upper=1.1 * v, value=v) for p, v in zip(others, (0.16, 23.6))]
    return CalibrationProblem([*own, *others], [replace(one, name=name) for name in names])


def side_by_side(workers: Workers) -> tuple[float, str]:
    """Seconds of a calibration to four experiments, and where it ended."""
    began = time.perf_counter()
    result = calibrate(experiments(), settings=SETTINGS, workers=workers)
    return time.perf_counter() - began, result.evaluation.t.tobytes().hex()


def nothing(number: int) -> int:
    return number


def overhead(workers: Workers, tasks: int) -> float:
    """Milliseconds that a task without work takes, the pool's own start aside."""
    seconds = []
    for count in (2, 2 + tasks):
        began = time.perf_counter()
        assert run_tasks(nothing, [(k,) for k in range(count)], workers) == list(range(count))
        seconds.append(time.perf_counter() - began)
    return 1e3 * (seconds[1] - seconds[0]) / tasks


def run(quick: bool) -> list[Record]:
    torch.set_num_threads(1)
    starts, tasks = (12, 50) if quick else (64, 200)
    ways = {
        "serial": Workers(),
        "processes, 1 worker": Workers("processes", 1),
        "processes, 2 workers": Workers("processes", 2),
    }
    if find_spec("distributed"):
        ways["dask, 2 workers"] = Workers("dask", 2)
    measured = {name: timed(workers, starts) for name, workers in ways.items()}
    serial, results = measured["serial"]
    records = [stated(f"{starts} starts: minima of different phi", float(len({f"{phi:.6g}" for _, phi, _ in results})))]
    for name, (seconds, found) in measured.items():
        records.append(stated(f"{starts} starts, {name}", seconds, "s"))
        if name != "serial":
            records.append(
                at_most(
                    f"starts that differ from the serial ones, {name}",
                    float(sum(a != b for a, b in zip(found, results))),
                    0,
                )
            )
    cores = len(os.sched_getaffinity(0))
    speed = serial / measured["processes, 2 workers"][0]
    records.append(
        at_least("speed-up of two processes, their start included", speed, 1.7)
        if cores > 1
        else stated("one core", None)
    )
    (here, ended), (apart, also) = (side_by_side(ways[name]) for name in ("serial", "processes, 2 workers"))
    records.append(at_most("four experiments side by side: results that differ", float(ended != also), 0))
    records.append(stated("four experiments, serial", here, "s"))
    records.append(stated("four experiments on two processes, their start included", apart, "s"))
    for name in ("serial", "processes, 2 workers", *(["dask, 2 workers"] if "dask, 2 workers" in ways else [])):
        cost = median([overhead(ways[name], tasks) for _ in range(3)])
        records.append(at_most(f"a task without work, {name}", cost, 30.0, "ms"))
    return records
