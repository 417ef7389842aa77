"""The command line: bilevel init | check | run | resume | jacobian | uncertainty | plot | train-steps | bench-steps.

Nothing heavy is imported before a command needs it, so that `bilevel --help` answers at once.
Exit codes: 0 done; 1 the calibration or an inner solve failed; 2 bad input, nothing was written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bilevel.calibrate.result import CalibrationResult
    from bilevel.calibrate.settings import Settings
    from bilevel.calibrate.study.session import Session

app = typer.Typer(
    name="bilevel",
    help="Calibrate physical models with exact gradients through their inner solves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class MethodChoice(str, Enum):
    """Mirrors bilevel.calibrate.Method, which is too heavy to import for --help."""

    least_squares = "least_squares"
    lbfgsb = "lbfgsb"


class NoiseChoice(str, Enum):
    """Mirrors bilevel.calibrate.Noise."""

    estimated = "estimated"
    known = "known"


StudyPath = Annotated[Path, typer.Argument(help="The study.yml to work on.", metavar="STUDY")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the results (default: results/ beside the study).")]
Force = Annotated[bool, typer.Option("--force", help="Replace earlier results in that folder.")]
Noptmax = Annotated[int | None, typer.Option("--noptmax", min=-1, help="Iterations; 0: one run, -1: Jacobian only.")]
MethodOption = Annotated[MethodChoice | None, typer.Option("--method", help="Overrides the study's method.")]
NoiseOption = Annotated[
    NoiseChoice | None, typer.Option("--noise", help="'known': weights are 1/sigma; 'estimated': s2 = phi/(m - p).")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="A new folder.")], debug: Debug = False) -> None:
    """Write a commented study.yml with tiny data that runs at once."""
    with _errors(debug):
        from bilevel.calibrate.study.template import write_template

        study = write_template(folder)
        print(f"wrote {study} and its data; next: bilevel run {study}")


@app.command()
def check(study: StudyPath, debug: Debug = False) -> None:
    """Validate a study, run one simulation, and check its gradient against finite differences."""
    with _errors(debug):
        from bilevel.calibrate.study.check import check_study
        from bilevel.calibrate.study.loading import load_study

        loaded = load_study(study)
        text, good = check_study(loaded)
        print(text)
        if not good:
            raise typer.Exit(1)


@app.command()
def run(
    study: StudyPath,
    out: Out = None,
    force: Force = False,
    noptmax: Noptmax = None,
    method: MethodOption = None,
    debug: Debug = False,
) -> None:
    """Calibrate: fit the parameters, write the results and the report."""
    with _errors(debug):
        session = _session(study, out)
        _finish(session, session.run(_settings(session, noptmax, method), force))


@app.command()
def resume(study: StudyPath, out: Out = None, debug: Debug = False) -> None:
    """Go on with an interrupted run, to the answer that it would have reached."""
    with _errors(debug):
        session = _session(study, out)
        _finish(session, session.resume())


@app.command()
def jacobian(study: StudyPath, out: Out = None, force: Force = False, debug: Debug = False) -> None:
    """Jacobian and linear statistics at the start values (noptmax = -1); results go to results/jacobian."""
    with _errors(debug):
        session = _session(study, out or study.parent / "results" / "jacobian")
        _finish(session, session.run(_settings(session, -1, None), force))


@app.command()
def uncertainty(study: StudyPath, out: Out = None, noise: NoiseOption = None, debug: Debug = False) -> None:
    """Standard deviations, intervals and correlations of an earlier run."""
    with _errors(debug):
        session = _session(study, out)
        from bilevel.calibrate.report.summary import correlation_table, summary
        from bilevel.calibrate.settings import Noise

        result = session.replay(None if noise is None else Noise(noise.value))
        print(summary(session.study.title, result))
        print()
        print(correlation_table(result))


@app.command()
def plot(study: StudyPath, out: Out = None, debug: Debug = False) -> None:
    """Draw the pictures of an earlier run as PNG files in its folder."""
    with _errors(debug):
        for path in _session(study, out).draw():
            print(path)


@app.command()
def train_steps(
    family: Annotated[Path, typer.Argument(help="The family.yml to train from.", metavar="FAMILY")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    debug: Debug = False,
) -> None:
    """Train a learned first guess or learned steps on a family of problems; an interrupted training goes on."""
    with _errors(debug):
        from bilevel.acceleration.training.train_steps import train_steps as train

        file = train(family, progress=not quiet)
        print(f"wrote {file} and its model card {file.with_suffix('.json').name}")


@app.command()
def bench_steps(
    family: Annotated[str, typer.Argument(help="A family's name, or module:Class.", metavar="FAMILY")],
    guess: Annotated[Path | None, typer.Option("--guess", help="Weights in place of the shipped ones.")] = None,
    step: Annotated[Path | None, typer.Option("--step", help="Weights of learned steps, likewise.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few instances at 4x: a look, no verdict.")] = False,
    instances: Annotated[int, typer.Option("--instances", min=1, help="Unseen instances of each size.")] = 100,
    times: Annotated[
        list[int] | None, typer.Option("--times", min=1, help="A size in training sizes (default 4, 16 and 64).")
    ] = None,
    budget: Annotated[float, typer.Option("--budget", min=0.1, help="Seconds for one solve at 4x.")] = 10.0,
    against: Annotated[
        list[str] | None, typer.Option("--against", help="A classical method; all of them unless some are named.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    debug: Debug = False,
) -> None:
    """Compare learned steps with the best classical solvers, each tuned on the same training set."""
    with _errors(debug):
        from bilevel.acceleration.bench import Settings
        from bilevel.acceleration.bench.bench_steps import QUICK
        from bilevel.acceleration.bench.bench_steps import bench_steps as bench

        settings = QUICK if quick else Settings(instances, tuple(times or (4, 16, 64)), budget=budget)
        print(bench(family, settings, guess, step, json, against or ()))


def main() -> None:
    """The entry point of the `bilevel` command."""
    app()


def _session(study: Path, out: Path | None) -> Session:
    from bilevel.calibrate.study.loading import load_study
    from bilevel.calibrate.study.session import Session

    return Session(load_study(study), out or study.parent / "results")


def _settings(session: Session, noptmax: int | None, method: MethodChoice | None) -> Settings:
    from bilevel.calibrate.settings import Method

    settings = session.study.settings
    if noptmax is not None:
        settings = replace(settings, noptmax=noptmax)
    return settings if method is None else replace(settings, method=Method(method.value))


def _finish(session: Session, result: CalibrationResult) -> None:
    from bilevel.calibrate.report.outputs import REPORT
    from bilevel.calibrate.report.summary import summary

    print(summary(session.study.title, result))
    print(f"\nreport: {session.folder / REPORT}")
    if not result.converged:
        print(f"error: {result.status}", file=sys.stderr)
        raise typer.Exit(1)


@contextmanager
def _errors(debug: bool) -> Iterator[None]:
    """Turn errors into one line and an exit code, unless the traceback is asked for."""
    from bilevel.report import BilevelError, InputError

    try:
        yield
    except (InputError, BilevelError) as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None
    except typer.Exit:
        raise
    except Exception as error:  # a user's own model may raise anything
        if debug:
            raise
        print(f"error: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("interrupted; bilevel resume goes on from the last checkpoint", file=sys.stderr)
        raise typer.Exit(130) from None
