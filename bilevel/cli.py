"""The command line: bilevel init | models | check | run | resume | compare | jacobian | uncertainty | profile | multistart | pest |
plot | train-steps ...

Nothing heavy is imported before a command needs it, so that `bilevel --help` answers at once.
Exit codes: 0 done; 1 the calibration, an inner solve or a user's model failed; 2 bad input, and earlier results are as
they were; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilevel import __version__
from bilevel.calibrate.settings import Method, Noise, Settings

if TYPE_CHECKING:
    from bilevel.calibrate.result import CalibrationResult
    from bilevel.calibrate.study.session import Session

app = typer.Typer(
    name="bilevel",
    help="Calibrate physical models with exact gradients through their inner solves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StudyPath = Annotated[Path, typer.Argument(help="The study.yml to work on.", metavar="STUDY")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the results (default: results/ beside study.yml).")]
Force = Annotated[bool, typer.Option("--force", help="Replace earlier results in that folder.")]
Noptmax = Annotated[
    int | None, typer.Option("--noptmax", min=-1, max=1_000_000, help="Iterations; 0: one run, -1: Jacobian only.")
]
MethodOption = Annotated[Method | None, typer.Option("--method", help="Overrides the study's method.")]
NoiseOption = Annotated[
    Noise | None, typer.Option("--noise", help="'known': weights are 1/sigma; 'estimated': s2 = phi/(m - p).")
]
RunName = Annotated[str | None, typer.Option("--run", help="One of the study's named runs.", metavar="NAME")]
ExecutorOption = Annotated[
    str | None, typer.Option("--executor", help="serial, processes, dask, tcp://host:port or mpi.", metavar="KIND")
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="How many workers (default: one a core).")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bilevel {__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """What holds for all commands; the help text is the application's."""


@app.command()
def init(
    name: Annotated[
        str | None, typer.Argument(help="A new folder; with --example the example.", metavar="NAME")
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(help="With --example, the new folder (default: NAME).", metavar="[FOLDER]")
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Write the example NAME; alone, list them.")] = False,
    kind: Annotated[str, typer.Option("--kind", help="Whose template: bilevel models lists all kinds.")] = "python",
    debug: Debug = False,
) -> None:
    """Write a commented study.yml with tiny data that runs at once, or a copy of a shipped example."""
    with _errors(debug):
        from bilevel.calibrate.study.examples import list_examples, write_example
        from bilevel.calibrate.study.template import write_template
        from bilevel.report import InputError

        if kind != "python" and (example or name is None):
            raise InputError("a kind's template needs a folder: bilevel init --kind darcy FOLDER")
        if name is None and example:
            for title, line in list_examples().items():
                _say(f"{title:20} {line}")
        elif name is None or (folder is not None and not example):
            raise InputError("say where: bilevel init FOLDER, or bilevel init --example NAME [FOLDER]")
        elif example:
            _say(f"wrote {write_example(name, folder or Path(name))}; its README.md says what to run")
        else:
            study = write_template(Path(name), kind)
            _say(f"wrote {study} and its data; next: bilevel run {study}")


@app.command()
def models(
    kind: Annotated[str | None, typer.Argument(help="A kind; without it, all of them.", metavar="[KIND]")] = None,
    debug: Debug = False,
) -> None:
    """List the kinds of studies, or all keys, columns and units of one."""
    with _errors(debug):
        from bilevel.calibrate.study.kinds import describe_kind, kinds

        if kind is not None:
            _say(describe_kind(kind))
        else:
            for name, line in kinds().items():
                _say(f"{name:20} {line}")


@app.command()
def compare(study: StudyPath, debug: Debug = False) -> None:
    """Parameters and misfit of a study and its named runs, side by side."""
    with _errors(debug):
        session = _session(study, None, None)
        from bilevel.calibrate.study.named_runs import compare as table

        _say(table(session.folder))


@app.command()
def check(
    study: StudyPath,
    named: RunName = None,
    map_file: Annotated[Path | None, typer.Option("--map", help="Draw mesh, zones, boundaries and sensors.")] = None,
    debug: Debug = False,
) -> None:
    """Validate a study, run one simulation, and check its gradient against finite differences."""
    with _errors(debug):
        session = _session(study, None, named)
        from bilevel.calibrate.study.check import check_study, draw_maps

        for path in draw_maps(session.study, map_file) if map_file else ():
            _say(f"wrote {path}")
        text, good = check_study(session.study)
        _say(text)
        if not good:
            raise typer.Exit(1)


@app.command()
def run(
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
    with _errors(debug):
        session = _elsewhere(_session(study, out, named), executor, workers)
        _finish(session, session.run(_settings(session, noptmax, method), force))


@app.command()
def resume(
    study: StudyPath,
    out: Out = None,
    named: RunName = None,
    noptmax: Noptmax = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    debug: Debug = False,
) -> None:
    """Go on with an interrupted run, to the answer that it would have reached; or further, with more iterations."""
    with _errors(debug):
        session = _elsewhere(_session(study, out, named), executor, workers)
        _finish(session, session.resume(noptmax))


@app.command()
def jacobian(
    study: StudyPath, out: Out = None, named: RunName = None, force: Force = False, debug: Debug = False
) -> None:
    """Jacobian and linear statistics at the start values (noptmax = -1); results go to results/jacobian."""
    with _errors(debug):
        session = _session(study, out, named)
        session = session if out else replace(session, folder=session.folder / "jacobian")
        _finish(session, session.run(_settings(session, -1, None), force))


@app.command()
def uncertainty(
    study: StudyPath, out: Out = None, named: RunName = None, noise: NoiseOption = None, debug: Debug = False
) -> None:
    """Standard deviations, intervals and correlations of an earlier run."""
    with _errors(debug):
        session = _session(study, out, named)
        from bilevel.calibrate.report.summary import correlation_table, summary

        result = session.earlier_result(noise)
        _say(summary(session.study.title, result))
        _say()
        _say(correlation_table(result))


@app.command()
def profile(
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
    with _errors(debug):
        session = _elsewhere(_session(study, out, named), executor, workers)
        _finish(session, session.profile(names or ()))


@app.command()
def pest(study: StudyPath, out: Out = None, named: RunName = None, debug: Debug = False) -> None:
    """Write an earlier run as a PEST case (.pst, .jcb, covariances) into results/pest, for pyEMU and PEST++."""
    with _errors(debug):
        for path in _session(study, out, named).write_pest_case():
            _say(path)


@app.command()
def multistart(
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
    with _errors(debug):
        session = _elsewhere(_session(study, out, named), executor, workers).with_starts(count)
        session = session if out else replace(session, folder=session.folder / "multistart")
        _finish(session, session.run(None, force))


@app.command()
def plot(study: StudyPath, out: Out = None, named: RunName = None, debug: Debug = False) -> None:
    """Draw the pictures of an earlier run as PNG files in its folder."""
    with _errors(debug):
        paths, failed = _session(study, out, named).draw()
        for path in paths:
            _say(path)
        for sentence in failed:
            print(f"note: {sentence}", file=sys.stderr)


@app.command()
def train_steps(
    family: Annotated[Path, typer.Argument(help="A family.yml, or a study.yml for its own family.", metavar="FAMILY")],
    force: Annotated[bool, typer.Option("--force", help="Replace weights that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    debug: Debug = False,
) -> None:
    """Train a learned first guess on a family of problems, or for a study; the training of a family goes on if interrupted."""
    with _errors(debug):
        from bilevel.acceleration.training.train_steps import train_steps as train

        file = train(family, progress=not quiet, overwrite=force)
        _say(f"wrote {file} and its model card {file.with_suffix('.json').name}")


@app.command()
def bench_steps(
    family: Annotated[str, typer.Argument(help="A family's name, or module:Class.", metavar="FAMILY")],
    guess: Annotated[Path | None, typer.Option("--guess", help="Weights in place of the shipped ones.")] = None,
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
    """Compare a learned guess with the best classical solvers, each tuned on the same training set."""
    with _errors(debug):
        from bilevel.acceleration.bench.bench_steps import QUICK
        from bilevel.acceleration.bench.bench_steps import bench_steps as bench
        from bilevel.acceleration.bench.report import BenchSettings

        settings = QUICK if quick else BenchSettings(instances, tuple(times or (4, 16, 64)), budget=budget)
        _say(bench(family, settings, guess, json, against or ()))


def main() -> None:
    """The entry point of the `bilevel` command."""
    _open_standard_streams()
    app()


def _say(text: object = "") -> None:
    """Print; a reader that went away, as in `bilevel run ... | head`, changes neither the work nor the exit code."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_standard_streams() -> None:
    """Streams that the caller closed lead nowhere; else the next file opened would get what is printed to them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _session(study: Path, out: Path | None, run: str | None) -> Session:
    import torch

    from bilevel.calibrate.study.loading import load_study
    from bilevel.calibrate.study.session import Session

    torch.set_default_dtype(torch.float64)  # before the user's file is imported; the process is ours
    loaded = load_study(study, run)
    return Session.beside(loaded) if out is None else Session(loaded, out)


def _elsewhere(session: Session, executor: str | None, workers: int | None) -> Session:
    """The session whose further fits are computed where the command line says."""
    from bilevel.calibrate.fit.executors import Workers

    given = session.study.workers
    chosen = Workers(executor or given.executor, workers or given.count, given.timeout)
    return replace(session, study=replace(session.study, workers=chosen))


def _settings(session: Session, noptmax: int | None, method: Method | None) -> Settings:
    settings = session.study.settings
    if noptmax is not None:
        settings = replace(settings, noptmax=noptmax)
    return settings if method is None else replace(settings, method=method)


def _finish(session: Session, result: CalibrationResult) -> None:
    from bilevel.calibrate.report.summary import summary
    from bilevel.calibrate.study.files import REPORT

    _say(summary(session.study.title, result))
    _say(f"\nreport: {session.folder / REPORT}")
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
        print(f"error: {_place(error)}{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("interrupted; bilevel resume goes on from the last checkpoint", file=sys.stderr)
        raise typer.Exit(130) from None


def _place(error: Exception) -> str:
    """File and line of the innermost frame of a user's own code, else of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = Path(__file__).parent.parent
    theirs = [f for f in frames if not {"site-packages", "dist-packages"} & set(Path(f.filename).parts)]
    theirs = [f for f in theirs if not any(Path(f.filename).is_relative_to(ours / p) for p in ("bilevel", "physics"))]
    frame = (theirs or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}: "


if __name__ == "__main__":
    main()
