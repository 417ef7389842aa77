"""Runs of a program, each in a folder of its own, several at a time, none beyond its time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bilevel.calibrate.command.input_file import Template
from bilevel.report import BilevelError

_T = TypeVar("_T")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_QUOTED = 300
"""Characters of a program's last words that are told."""
_READ = 10_000
"""Bytes from the end of what it printed in which they are sought."""


@dataclass
class Program:
    """A command, what it finds in its folder, and how long it may take.

    runs: where the folders of runs stay, None = a temporary place, from which those that succeeded are removed.
    workers: runs at a time; where there are several, each has one thread for its linear algebra.
    """

    command: Sequence[str]
    templates: Sequence[Template]
    files: Sequence[Path]
    seconds: float
    workers: int
    runs: Path | None = None
    _alive: set[subprocess.Popen[bytes]] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __deepcopy__(self, memo: object) -> Program:
        return Program(self.command, self.templates, self.files, self.seconds, self.workers, self.runs)

    def run_all(self, points: Sequence[Mapping[str, float]], read: Callable[[Path], _T]) -> list[_T | BilevelError]:
        """What `read` finds in each run's folder, or why the run failed, in order. An interruption ends all runs."""
        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            waiting = [pool.submit(self._run, point, read) for point in points]
            try:
                return [run.result() for run in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self._alive):
                    _end(process)
                raise

    def _run(self, point: Mapping[str, float], read: Callable[[Path], _T]) -> _T | BilevelError:
        folder = None
        try:
            folder = self._folder()
            self._prepare(folder, point)
            self._execute(folder)
            found = read(folder)
        except (BilevelError, OSError) as error:  # OSError: a full disk, a file that must not be read
            values = ", ".join(f"{name} = {value:.6g}" for name, value in point.items())
            seen = "" if folder is None else f" (see {folder})"
            return BilevelError(f"the program failed at {values}: {error}{seen}")
        if self.runs is None:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    def _folder(self) -> Path:
        if self.runs is not None:
            self.runs.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="run_" if self.runs else "bilevel_run_", dir=self.runs))

    def _prepare(self, folder: Path, point: Mapping[str, float]) -> None:
        for source in self.files:
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, folder / source.name)
        for template in self.templates:
            target = folder / template.target
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(template.fill(point), encoding="utf-8")

    def _execute(self, folder: Path) -> None:
        """BilevelError where the program does not end, or ends with anything but 0."""
        alone = dict.fromkeys(_THREADS, "1") if self.workers > 1 else {}
        with open(folder / "stdout.txt", "wb") as out, open(folder / "stderr.txt", "wb") as err:
            try:
                process = subprocess.Popen(
                    self.command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                    env=os.environ | alone, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise BilevelError(f"'{self.command[0]}' cannot be started: {error.strerror}") from None
            with self._lock:
                self._alive.add(process)
            try:
                code = process.wait(self.seconds)
            except subprocess.TimeoutExpired:
                raise BilevelError(f"it had not ended after {self.seconds:g} s and was stopped") from None
            finally:
                _end(process)
                with self._lock:
                    self._alive.discard(process)
        if code:
            raise BilevelError(f"it {_how(code)}{_last_words(folder)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The program and whatever it started and left behind."""
    try:
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _how(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by signal {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _last_words(folder: Path) -> str:
    for name in ("stderr.txt", "stdout.txt"):
        with open(folder / name, "rb") as file:
            file.seek(-min(_READ, file.seek(0, os.SEEK_END)), os.SEEK_END)
            lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
        if lines:
            return f", and said last: {lines[-1].strip()[:_QUOTED]}"
    return ""
