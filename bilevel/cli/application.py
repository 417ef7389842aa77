"""The application, to which each command adds itself."""

from __future__ import annotations

from typing import Annotated

import typer

from bilevel import __version__

app = typer.Typer(
    name="bilevel",
    help="Calibrate physical models with exact gradients through their inner solves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
