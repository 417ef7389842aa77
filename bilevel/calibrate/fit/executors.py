"""Where independent tasks run: here, in processes, on a dask cluster, under MPI, or on any concurrent.futures.Executor.

A task's result is plain (numbers, texts, lists, mappings), so that it can be kept in a file: what is finished is not done
again after an interruption. A task whose worker dies is run again; one that outlives its timeout takes its worker along.
Every task runs on one thread and from the same start wherever it runs, so results are the same bit for bit.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bilevel.calibrate.fit.stop import Stopped, stop_asked
from bilevel.calibrate.study.files import write_atomically
from bilevel.report import InputError

SERIAL, PROCESSES, DASK, MPI = "serial", "processes", "dask", "mpi"
ATTEMPTS = 3
"""A task whose worker died or hung so often is given up; the last time it runs alone, so that it takes no other along."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Workers:
    """executor: serial, processes, dask (a cluster of its own), tcp://host:port (dask's scheduler), mpi, or an Executor.

    count: how many workers, None = one a core. timeout: seconds that a task may take, None = any.
    """

    executor: str | Executor = SERIAL
    count: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        name = self.executor
        if isinstance(name, str) and name not in (SERIAL, PROCESSES, DASK, MPI) and not name.startswith("tcp://"):
            raise InputError(f"executor is serial, processes, dask, tcp://host:port or mpi, not '{name}'")
        if self.timeout is not None and (name == SERIAL or isinstance(name, (SerialExecutor, ThreadPoolExecutor))):
            raise InputError("a timeout needs workers that can be ended: executor processes, dask or mpi")

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        """The executor, started anew unless it is the caller's own; InputError where its package is not installed."""
        if isinstance(self.executor, Executor):
            yield self.executor
        elif self.executor == SERIAL:
            yield SerialExecutor()
        elif self.executor == PROCESSES:
            count = self.count or os.cpu_count() or 1
            with _environment(), ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
                yield pool
        elif self.executor == MPI:
            try:
                from mpi4py.futures import MPIPoolExecutor
            except ImportError as error:
                raise InputError(f"executor mpi needs mpi4py ({error}): pip install 'bilevel[mpi]'") from None
            with MPIPoolExecutor(self.count) as pool:
                yield pool
        else:
            yield from self._dask()

    def _dask(self) -> Iterator[Executor]:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise InputError(f"executor dask needs distributed ({error}): pip install 'bilevel[dask]'") from None
        if self.executor != DASK:
            with Client(self.executor) as client, client.get_executor(pure=False) as pool:
                yield pool
            return
        quiet = {"dashboard_address": None, "silence_logs": logging.ERROR}
        with (
            LocalCluster(n_workers=self.count or os.cpu_count(), threads_per_worker=1, **quiet) as cluster,
            Client(cluster) as client,
            client.get_executor(pure=False) as pool,
        ):
            yield pool


HERE = Workers()
"""One task after the other, in this process."""


@dataclass(frozen=True)
class TaskFailure:
    """A task that has no result because its worker died or took too long each time."""

    sentence: str


def run_tasks(
    function: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    workers: Workers = HERE,
    *,
    keep: Path | None = None,
    keys: Sequence[str] = (),
    what: str = "tasks",
) -> list[Any]:
    """function(*job) of each job in order; function stands in a module, and catches what its own work may raise.

    keep: a folder in which finished results stay, under the texts `keys` of all that they depend on; but for mappings with
    a `reason`, which say what went wrong.
    """
    results = {i: found for i, key in enumerate(keys if keep else ()) if (found := _kept(keep, key)) is not None}
    with _single_threaded(), tqdm(total=len(jobs), unit=what, disable=not sys.stderr.isatty(), leave=False) as bar:
        bar.update(len(results))

        def done(i: int, result: Any) -> None:
            results[i] = result
            bar.update(1)
            troubled = isinstance(result, dict) and result.get("reason")  # may have been the machine's fault
            if keep is not None and not troubled:
                _keep(keep, keys[i], result)

        trouble: dict[int, str] = {}
        for attempt in range(ATTEMPTS):
            left = [i for i in range(len(jobs)) if i not in results]
            batches = [[i] for i in left] if attempt == ATTEMPTS - 1 else [left] * bool(left)
            for batch in batches:
                trouble.update(_attempt(function, jobs, batch, workers, done))
        for i in range(len(jobs)):
            if i not in results:
                results[i] = TaskFailure(trouble[i])
    return [results[i] for i in range(len(jobs))]


def _attempt(
    function: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    batch: Sequence[int],
    workers: Workers,
    done: Callable[[int, Any], None],
) -> dict[int, str]:
    """Run some jobs once; returns what befell those without a result."""
    trouble: dict[int, str] = {}
    limit = f" (or it took more than {workers.timeout:g} s)" if workers.timeout else ""
    try:
        with workers.pool() as pool:
            futures: dict[Future[Any], int] = {}

            def collect(future: Future[Any]) -> None:
                i = futures.pop(future)
                try:
                    done(i, future.result())
                except InputError:
                    raise
                except Exception as error:  # a pool, a worker, a connection broke: the task itself raises nothing
                    trouble[i] = f"its worker died{limit}: {type(error).__name__}: {error}"
                if stop_asked():
                    for other in futures:
                        other.cancel()
                    raise Stopped

            for i in batch:
                trouble[i] = f"its worker died{limit}"
                future = pool.submit(perform, function, jobs[i], workers.timeout, torch.get_default_dtype())
                futures[future] = i
                if future.done():  # tasks that run here end as they are handed out
                    collect(future)
            for future in as_completed(list(futures)):
                collect(future)
    except InputError:
        raise
    except Exception as error:  # likewise, while tasks were handed out or the pool was taken down
        trouble = {i: f"the executor failed: {type(error).__name__}: {error}" for i in batch} | trouble
    return trouble


def perform(function: Callable[..., Any], job: tuple[Any, ...], timeout: float | None, dtype: torch.dtype) -> Any:
    """In a worker: one task on one thread; a watchdog in C ends the process, whatever hangs in it, after the timeout."""
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)
    if timeout is None:
        return function(*job)
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(timeout, exit=True, file=nowhere)
        try:
            return function(*job)
        finally:
            faulthandler.cancel_dump_traceback_later()


class SerialExecutor(Executor):
    """Runs each task as it is submitted."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def _single_threaded() -> Iterator[None]:
    """What runs here rounds as it does in a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _environment() -> Iterator[None]:
    """Processes that start within it take one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _file(folder: Path, key: str) -> Path:
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _kept(folder: Path | None, key: str) -> Any:
    """A finished result, None where there is none or its file is damaged."""
    try:
        content = json.loads(_file(folder or Path(), key).read_text(encoding="utf-8"))
        return content["result"] if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(folder: Path, key: str, result: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(_file(folder, key), json.dumps({"key": key, "result": result}))
