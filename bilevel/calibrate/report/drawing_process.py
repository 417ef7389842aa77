"""A process that draws pictures beside this one: it loads Matplotlib while a calibration runs, and shares the pictures with forks of itself."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from bilevel.calibrate.report.picture import Drawing
from bilevel.calibrate.report.rendering import Image, rendered
from bilevel.calibrate.report.result_plots import traces_figure

Draw: TypeAlias = "Callable[[Sequence[Drawing], str], list[Image | Exception]]"
"""Each drawing as a file, "svg" or "png", or why there is none."""
MOST = 4
"""Cores that draw."""


def draw_here(drawings: Sequence[Drawing], kind: str) -> list[Image | Exception]:
    """One after the other, in this process."""
    return [_here(drawing, kind) for drawing in drawings]


def _here(drawing: Drawing, kind: str) -> Image | Exception:
    try:
        return rendered(drawing, kind)
    except Exception as error:  # a model's own picture may raise anything
        return error


class DrawingProcess:
    """Draws what can be sent to it; the rest, and what it fails at, is drawn here.

    It gets functions and numbers by its standard input, and ends when that does: with this process, however it ends.
    """

    def __init__(self) -> None:
        # It finds the modules that this process finds, and does not look at the script that it runs. A session of its own, and
        # where there is none to ignore it: this process answers the interrupt that a terminal sends to all.
        ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
        code = f"{ignore}; import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        options: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # a process with threads had better not fork
        self.process = subprocess.Popen([sys.executable, "-c", code], env=environment, **options)

    def draw(self, drawings: Sequence[Drawing], kind: str) -> list[Image | Exception]:
        """As `Draw` says."""
        beside = self._beside([_pickled((drawing, kind)) for drawing in drawings])
        return [beside.get(k) or _here(drawing, kind) for k, drawing in enumerate(drawings)]

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.communicate()

    def _beside(self, jobs: Sequence[bytes]) -> dict[int, Image]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            pickle.dump(jobs, self.process.stdin)
            self.process.stdin.flush()
            return pickle.load(self.process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):  # it died
            return {}


def _pickled(job: tuple[Drawing, str]) -> bytes:
    """Nothing for what cannot be sent: a user's function, or a figure that has one among its parts."""
    try:
        return pickle.dumps(job)
    except Exception:  # pickling calls the methods of anything
        return b""


def serve() -> None:
    """Draw what comes by standard input until it ends; what fails is left out, to be tried, and told, where it came from."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what drawings print is no answer
    gc.disable()  # imports make no garbage
    # The first figure takes twice as long as the next: it loads Matplotlib, fonts, and what both load late.
    rendered(partial(traces_figure, ["first"], [np.array([1.0, 100.0])]), "svg")
    gc.freeze()
    gc.enable()
    while True:
        try:
            jobs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_shared(jobs), answers)
        answers.flush()


def _shared(jobs: Sequence[bytes]) -> dict[int, Image]:
    """The pictures by the numbers of their jobs, drawn by this process and, on Linux, forks of it: one Matplotlib serves them all."""
    left = _queue(sorted((k for k, job in enumerate(jobs) if job), key=lambda k: -len(jobs[k])))
    helpers = min(MOST, os.cpu_count() or 1, len(jobs)) - 1 if sys.platform == "linux" else 0
    forks = [_fork(jobs, left) for _ in range(helpers)]
    found = _drawn(jobs, left)
    left.close()
    for pid, answer in forks:
        with answer:
            found |= _received(answer)
        os.waitpid(pid, 0)
    return found


def _fork(jobs: Sequence[bytes], left: BinaryIO) -> tuple[int, BinaryIO]:
    """A fork that draws some of what is left, and where its pictures come."""
    end, start = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            with os.fdopen(start, "wb") as answer:
                pickle.dump(_drawn(jobs, left), answer)
        finally:
            os._exit(0)
    os.close(start)
    return pid, os.fdopen(end, "rb")


def _queue(numbers: Sequence[int]) -> BinaryIO:
    """A pipe with the numbers, from which several processes take one after the other."""
    end, start = os.pipe()
    with os.fdopen(start, "wb") as stream:
        stream.write(b"".join(k.to_bytes(2, "little") for k in numbers))
    return os.fdopen(end, "rb", buffering=0)


def _drawn(jobs: Sequence[bytes], left: BinaryIO) -> dict[int, Image]:
    found = {}
    while number := left.read(2):
        k = int.from_bytes(number, "little")
        try:
            found[k] = rendered(*pickle.loads(jobs[k]))
        except Exception:
            continue
    return found


def _received(answer: BinaryIO) -> dict[int, Image]:
    try:
        return pickle.load(answer)
    except (EOFError, pickle.UnpicklingError):  # that fork died
        return {}
