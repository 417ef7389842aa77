"""Commands of learned first guesses: train-steps, bench-steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilevel.cli.application import app
from bilevel.cli.options import (
    Debug,
)
from bilevel.cli.streams import errors, say


@app.command()
def train_steps(
    family: Annotated[Path, typer.Argument(help="A family.yml, or a study.yml for its own family.", metavar="FAMILY")],
    force: Annotated[bool, typer.Option("--force", help="Replace weights that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    debug: Debug = False,
) -> None:
    """Train a learned first guess on a family of problems, or for a study; the training of a family goes on if interrupted."""
    with errors(debug):
        from bilevel.acceleration.training.train_steps import train_steps as train

        file = train(family, progress=not quiet, overwrite=force)
        say(f"wrote {file} and its model card {file.with_suffix('.json').name}")


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
    graphs: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--graphs", help="Tables of nodes (name, x, y) and edges (start, end) to measure on."),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    debug: Debug = False,
) -> None:
    """Compare a learned guess with the best classical solvers, each tuned on the same training set."""
    with errors(debug):
        from bilevel.acceleration.bench.bench_steps import QUICK
        from bilevel.acceleration.bench.bench_steps import bench_steps as bench
        from bilevel.acceleration.bench.report import BenchSettings

        settings = QUICK if quick else BenchSettings(instances, tuple(times or (4, 16, 64)), budget=budget)
        say(bench(family, settings, guess, json, against or (), graphs))
