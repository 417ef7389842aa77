"""From a command's options to a session, and from a result to what is printed."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bilevel.calibrate.settings import Method, Settings
from bilevel.cli.streams import say

if TYPE_CHECKING:
    from bilevel.calibrate.report.drawing_process import Draw
    from bilevel.calibrate.result import CalibrationResult
    from bilevel.calibrate.study.session import Session


def start_drawing() -> Draw | None:
    """What draws in a process that loads Matplotlib while this one loads PyTorch, where there is a core for it."""
    from bilevel.calibrate.report.drawing_process import DrawingProcess

    if (os.cpu_count() or 1) == 1:
        return None
    process = DrawingProcess()
    atexit.register(process.close)
    return process.draw


def open_session(
    study: Path, out: Path | None, run: str | None, start: Callable[[], Draw | None] | None = None
) -> Session:
    """start: of what draws pictures, for commands that write a report in a process of their own."""
    from bilevel.calibrate.study.yaml_lines import read_yaml

    document = read_yaml(study)  # a file that is not there, or no YAML, need not wait for PyTorch
    draw = start() if start else None
    with _loading():
        import torch

        from bilevel.calibrate.study.loading import load_study
        from bilevel.calibrate.study.session import Session

        torch.set_default_dtype(torch.float64)  # before the user's file is imported; the process is ours
        loaded = load_study(study, run, document)
    session = Session.beside(loaded) if out is None else Session(loaded, out)
    return session if draw is None else replace(session, draw_pictures=draw)


@contextmanager
def _loading() -> Iterator[None]:
    """Imports make no garbage: none is looked for inside the block, nor later among what was made there."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def elsewhere(session: Session, executor: str | None, workers: int | None) -> Session:
    """The session whose further fits are computed where the command line says."""
    from bilevel.calibrate.fit.executors import Workers

    given = session.study.workers
    chosen = Workers(executor or given.executor, workers or given.count, given.timeout)
    return replace(session, study=replace(session.study, workers=chosen))


def settings_of(session: Session, noptmax: int | None, method: Method | None) -> Settings:
    settings = session.study.settings
    if noptmax is not None:
        settings = replace(settings, noptmax=noptmax)
    return settings if method is None else replace(settings, method=method)


def finish(session: Session, result: CalibrationResult) -> None:
    from bilevel.calibrate.report.summary import summary
    from bilevel.calibrate.study.files import REPORT

    say(summary(session.study.title, result))
    say(f"\nreport: {session.folder / REPORT}")
    if not result.converged:
        print(f"error: {result.status}", file=sys.stderr)
        raise typer.Exit(1)
