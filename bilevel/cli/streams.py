"""What is printed, and errors as one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


def say(text: object = "") -> None:
    """Print; a reader that went away, as in `bilevel run ... | head`, changes neither the work nor the exit code."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def open_standard_streams() -> None:
    """Streams that the caller closed lead nowhere; else the next file opened would get what is printed to them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


@contextmanager
def errors(debug: bool) -> Iterator[None]:
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
    ours = Path(__file__).parent.parent.parent
    theirs = [f for f in frames if not {"site-packages", "dist-packages"} & set(Path(f.filename).parts)]
    theirs = [f for f in theirs if not any(Path(f.filename).is_relative_to(ours / p) for p in ("bilevel", "physics"))]
    frame = (theirs or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}: "
