"""Processes that draw pictures beside this one: they load Matplotlib while a calibration runs, and share the pictures after it."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from bilevel.calibrate.report.picture import Drawing
from bilevel.calibrate.report.rendering import Image, rendered
from bilevel.calibrate.report.result_plots import traces_figure


class DrawingProcesses:
    """`count` processes, by default none; what they cannot draw is drawn here.

    They get functions and numbers by their standard input, and end when that does: with this process, however it ends.
    """

    def __init__(self, count: int = 0) -> None:
        # They find the modules that this process finds, and do not look at the script that it runs. A session of their own, and
        # where there are none to ignore it: this process answers the interrupt that a terminal sends to all.
        ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
        code = f"{ignore}; import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        options: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
        self.processes = [subprocess.Popen([sys.executable, "-c", code], **options) for _ in range(count)]

    def rendered(self, drawings: Sequence[Drawing], kind: str) -> list[Image | Exception]:
        """Each drawing as a file, "svg" or "png", or why there is none."""
        found = self._beside([_pickled((drawing, kind)) for drawing in drawings]) if self.processes else {}
        return [found.get(k) or _here(drawing, kind) for k, drawing in enumerate(drawings)]

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.terminate()
            process.communicate()
        self.processes = []

    def _beside(self, jobs: Sequence[bytes]) -> dict[int, Image | None]:
        """What the processes drew; they take the largest jobs first, so that they end together."""
        left = sorted((k for k, job in enumerate(jobs) if job), key=lambda k: len(jobs[k]))
        found: dict[int, Image | None] = {}

        def work(process: subprocess.Popen[bytes]) -> None:
            while left:
                k = left.pop()
                found[k] = _answer(process, jobs[k])

        with ThreadPoolExecutor(len(self.processes)) as pool:
            list(pool.map(work, self.processes))
        return found


def _pickled(job: tuple[Drawing, str]) -> bytes:
    """Nothing for what cannot be sent: a user's function, or a figure that has one among its parts."""
    try:
        return pickle.dumps(job)
    except Exception:  # pickling calls the methods of anything
        return b""


def _answer(process: subprocess.Popen[bytes], job: bytes) -> Image | None:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(job, process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):  # it died: what it leaves undone is drawn here
        return None


def _here(drawing: Drawing, kind: str) -> Image | Exception:
    try:
        return rendered(drawing, kind)
    except Exception as error:  # a model's own picture may raise anything
        return error


def serve() -> None:
    """Draw what comes by standard input until it ends; None for what fails, which is then tried, and told, where it came from."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what drawings print is no answer
    gc.disable()  # imports make no garbage
    # The first figure takes twice as long as the next: it loads Matplotlib, fonts, and what both load late.
    rendered(partial(traces_figure, ["first"], [np.array([1.0, 100.0])]), "svg")
    gc.freeze()
    gc.enable()
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            found = rendered(*pickle.loads(job))
        except Exception:
            found = None
        pickle.dump(found, answers)
        answers.flush()
