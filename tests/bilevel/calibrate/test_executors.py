"""Tasks give the same results wherever they run; what a worker's death or a broken file costs is another run of the task."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bilevel.calibrate.fit.executors import TaskFailure, Workers, run_tasks
from bilevel.report import InputError


def square(folder: str, number: float) -> float:
    """Notes that it ran."""
    (Path(folder) / f"{number}.{time.monotonic_ns()}").touch()
    return number * number


def dies_once(folder: str, number: int) -> int:
    """The first time, number 1 takes its process along."""
    marker = Path(folder) / "died"
    if number == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), 9)
    return number


def hangs(folder: str, number: int, times: int) -> int:
    """number 1 hangs so many times."""
    marker = Path(folder) / f"hung{len(list(Path(folder).glob('hung*')))}"
    if number == 1 and len(list(Path(folder).glob("hung*"))) < times:
        marker.touch()
        time.sleep(600)
    return number


def fails(number: int) -> int:
    raise ValueError(f"not {number}")


def test_results_come_in_the_order_of_the_jobs(tmp_path):
    jobs = [(str(tmp_path), x / 3) for x in range(7)]
    expected = [x * x for _, x in jobs]
    assert run_tasks(square, jobs) == expected
    with ThreadPoolExecutor(3) as pool:
        assert run_tasks(square, jobs, Workers(pool)) == expected


def test_what_is_kept_is_not_done_again_and_what_is_damaged_is(tmp_path):
    work, keep = tmp_path / "work", tmp_path / "keep"
    work.mkdir()
    jobs, keys = [(str(work), float(x)) for x in range(4)], [f"task {x}" for x in range(4)]
    first = run_tasks(square, jobs, keep=keep, keys=keys)
    assert len(list(work.iterdir())) == 4
    damaged = sorted(keep.iterdir())[0]
    damaged.write_text(damaged.read_text()[:-3])
    assert run_tasks(square, jobs, keep=keep, keys=keys) == first
    assert len(list(work.iterdir())) == 5
    assert json.loads(damaged.read_text())["key"] in keys
    assert run_tasks(square, jobs, keep=keep, keys=[f"other {key}" for key in keys]) == first
    assert len(list(work.iterdir())) == 9


def test_a_task_that_always_fails_says_so_and_the_others_are_done():
    (failure,) = run_tasks(fails, [(3,)])
    assert isinstance(failure, TaskFailure)
    assert "ValueError: not 3" in failure.sentence


@pytest.mark.slow
def test_a_killed_worker_costs_another_run_of_its_task(tmp_path):
    jobs = [(str(tmp_path), k) for k in range(4)]
    assert run_tasks(dies_once, jobs, Workers("processes", 2)) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_its_task_done_again(tmp_path):
    jobs = [(str(tmp_path), k, 1) for k in range(3)]
    assert run_tasks(hangs, jobs, Workers("processes", 2, timeout=1.0)) == [0, 1, 2]


@pytest.mark.slow
def test_a_task_that_hangs_every_time_is_given_up_alone(tmp_path):
    jobs = [(str(tmp_path), k, 9) for k in range(3)]
    first, failure, last = run_tasks(hangs, jobs, Workers("processes", 2, timeout=1.0))
    assert (first, last) == (0, 2)
    assert "it took more than 1 s" in failure.sentence


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what dask says as its workers die
def test_dask_gives_the_same_and_survives_a_worker_that_is_killed(tmp_path):
    pytest.importorskip("distributed")
    jobs = [(str(tmp_path), k) for k in range(4)]
    assert run_tasks(dies_once, jobs, Workers("dask", 2)) == [0, 1, 2, 3]
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"executor": "threads"}, "executor is serial, processes, dask"),
        ({"executor": "serial", "timeout": 3.0}, "a timeout needs workers that can be ended"),
        ({"executor": ThreadPoolExecutor(1), "timeout": 3.0}, "a timeout needs workers that can be ended"),
    ],
)
def test_bad_executors(given, what):
    with pytest.raises(InputError, match=what):
        Workers(**given)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'bilevel\[dask\]'"):
        run_tasks(fails, [(1,)], Workers("dask"))
