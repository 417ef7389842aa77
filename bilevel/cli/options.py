"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilevel.calibrate.settings import Method, Noise

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
