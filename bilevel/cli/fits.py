"""Commands that fit: run, resume, jacobian, multistart, profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from bilevel.cli.application import app
from bilevel.cli.options import (
    Debug,
    ExecutorOption,
    Force,
    MethodOption,
    Noptmax,
    Out,
    RunName,
    StudyPath,
    WorkersOption,
)
from bilevel.cli.sessions import elsewhere, finish, open_session, settings_of
from bilevel.cli.streams import errors


@app.command()
def run(
    context: typer.Context,
    study: StudyPath,
    out: Out = None,
    force: Force = False,
    noptmax: Noptmax = None,
    method: MethodOption = None,
    named: RunName = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    debug: Debug = False,
) -> None:
    """Calibrate: fit the parameters, write the results and the report."""
    with errors(debug):
        session = elsewhere(open_session(study, out, named, context.obj), executor, workers)
        finish(session, session.run(settings_of(session, noptmax, method), force))


@app.command()
def resume(
    context: typer.Context,
    study: StudyPath,
    out: Out = None,
    named: RunName = None,
    noptmax: Noptmax = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    debug: Debug = False,
) -> None:
    """Go on with an interrupted run, to the answer that it would have reached; or further, with more iterations."""
    with errors(debug):
        session = elsewhere(open_session(study, out, named, context.obj), executor, workers)
        finish(session, session.resume(noptmax))


@app.command()
def jacobian(
    context: typer.Context,
    study: StudyPath,
    out: Out = None,
    named: RunName = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Jacobian and linear statistics at the start values (noptmax = -1); results go to results/jacobian."""
    with errors(debug):
        session = open_session(study, out, named, context.obj)
        session = session if out else replace(session, folder=session.folder / "jacobian")
        finish(session, session.run(settings_of(session, -1, None), force))


@app.command()
def multistart(
    context: typer.Context,
    study: StudyPath,
    count: Annotated[
        int | None, typer.Option("--count", min=2, help="How many starts (default: the study's, or 16).")
    ] = None,
    out: Out = None,
    force: Force = False,
    named: RunName = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    debug: Debug = False,
) -> None:
    """Calibrate from several starts within the bounds; results of the best go to results/multistart."""
    with errors(debug):
        session = elsewhere(open_session(study, out, named, context.obj), executor, workers).with_starts(count)
        session = session if out else replace(session, folder=session.folder / "multistart")
        finish(session, session.run(None, force))


@app.command()
def profile(
    context: typer.Context,
    study: StudyPath,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Parameters, entries or rows of weight 0; without any, those of the study.", metavar="[NAME]..."
        ),
    ] = None,
    out: Out = None,
    named: RunName = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    debug: Debug = False,
) -> None:
    """Profile likelihood about an earlier run: 95 % intervals where linear theory fails, and what the data do not bound."""
    with errors(debug):
        session = elsewhere(open_session(study, out, named, context.obj), executor, workers)
        finish(session, session.profile(names or ()))
