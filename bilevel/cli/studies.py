"""Commands before a fit: init, models, check; and compare, which sets named runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilevel.cli.application import app
from bilevel.cli.options import (
    Debug,
    RunName,
    StudyPath,
)
from bilevel.cli.sessions import open_session
from bilevel.cli.streams import errors, say


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
    with errors(debug):
        from bilevel.calibrate.study.examples import list_examples, write_example
        from bilevel.calibrate.study.template import write_template
        from bilevel.report import InputError

        if kind != "python" and (example or name is None):
            raise InputError("a kind's template needs a folder: bilevel init --kind darcy FOLDER")
        if name is None and example:
            for title, line in list_examples().items():
                say(f"{title:20} {line}")
        elif name is None or (folder is not None and not example):
            raise InputError("say where: bilevel init FOLDER, or bilevel init --example NAME [FOLDER]")
        elif example:
            say(f"wrote {write_example(name, folder or Path(name))}; its README.md says what to run")
        else:
            study = write_template(Path(name), kind)
            say(f"wrote {study} and its data; next: bilevel run {study}")


@app.command()
def models(
    kind: Annotated[str | None, typer.Argument(help="A kind; without it, all of them.", metavar="[KIND]")] = None,
    debug: Debug = False,
) -> None:
    """List the kinds of studies, or all keys, columns and units of one."""
    with errors(debug):
        from bilevel.calibrate.study.kinds import describe_kind, kinds

        if kind is not None:
            say(describe_kind(kind))
        else:
            for name, line in kinds().items():
                say(f"{name:20} {line}")


@app.command()
def compare(study: StudyPath, debug: Debug = False) -> None:
    """Parameters and misfit of a study and its named runs, side by side."""
    with errors(debug):
        session = open_session(study, None, None)
        from bilevel.calibrate.study.named_runs import compare as table

        say(table(session.folder))


@app.command()
def check(
    study: StudyPath,
    named: RunName = None,
    map_file: Annotated[Path | None, typer.Option("--map", help="Draw mesh, zones, boundaries and sensors.")] = None,
    debug: Debug = False,
) -> None:
    """Validate a study, run one simulation, and check its gradient against finite differences."""
    with errors(debug):
        session = open_session(study, None, named)
        from bilevel.calibrate.study.check import check_study, draw_maps

        for path in draw_maps(session.study, map_file) if map_file else ():
            say(f"wrote {path}")
        text, good = check_study(session.study)
        say(text)
        if not good:
            raise typer.Exit(1)
